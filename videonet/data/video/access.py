"""Opening media files: plain files by their path, in formats from a list, one video stream."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import Any

import av

from videonet.data.video.content import Content, Source
from videonet.errors import DataError, DecodeError, VideonetError, too_many_files

# Damaged headers claim pictures that no memory holds; 8K video has 2**25 pixels.
MOST_PIXELS = 2**26
INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # containers that seek by an index
# FFmpeg's names of containers that hold a video in one file. Playlists, lists of other files,
# numbered pictures, devices, network protocols and text are not among them.
DEMUXERS = (
    "3dostr,4xm,anm,apng,argo_brp,asf,asf_o,av1,avi,avs,avs2,avs3,bethsoftvid,bfi,"
    "bink,bmv,c93,cavsvideo,cdxl,cine,derf,dfa,dhav,dirac,dnxhd,dsicin,dv,dxa,ea,"
    "ea_cdata,evc,film_cpk,filmstrip,flic,flv,frm,gdv,gif,gxf,h261,h263,h264,hevc,"
    "hnm,hxvs,idcin,ifv,ingenient,ipmovie,ipu,iss,iv8,ivf,ivr,jpegxl_anim,jv,kux,"
    "live_flv,lmlm4,luodat,lvf,lxf,m4v,matroska,mgsts,mjpeg,mjpeg_2000,mm,mods,"
    "moflex,mov,mp4,mpeg,mpegts,mpegvideo,msnwctcp,mtv,mv,mvi,mxf,mxg,nc,nsv,nut,"
    "nuv,obu,ogg,paf,pdv,pmp,psxstr,pva,r3d,rl2,rm,roq,rpl,ser,sga,siff,"
    "simbiosis_imx,smjpeg,smk,smush,swf,thp,tiertexseq,tmv,ty,usm,vc1,vc1test,vivo,"
    "vividas,vmd,vvc,webm,webp_anim,wc3movie,wsvqa,wtv,xmv,yop,yuv4mpegpipe"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
# What a decoder calls an error is one: no picture is made up from its neighbours.
_DECODER = {"err_detect": "crccheck+explode"}
# Titles and comments are not always UTF-8: av 19 reads them all, older ones when told to.
_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
# What PyAV raises for files: its own errors, those of the system, and for broken structures.
READ_ERRORS = (
    *(av.FFmpegError, OSError, ValueError, IndexError, OverflowError, MemoryError),
    NotImplementedError,
)
_PICTURE_BRANDS = ("avif", "heic", "heim", "heis", "heix", "mif1")  # MP4 files of still pictures
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a FIFO",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def check_plain_file(path: Source) -> None:
    """Raise DecodeError for what is no regular file: opening a FIFO or a device may never end."""
    if isinstance(path, Content):
        return
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise DecodeError(f"cannot read {path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise decode_error(path, error) from None
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS.items() if is_kind(mode)), "something else")
        raise DecodeError(f"cannot read {path}: it is {kind}, not a file")


def open_container(
    path: Source, *, careful: bool = True
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """The container of a plain file or of bytes, and its video stream, see :func:`choose_stream`.

    ``careful``: an error that a decoder finds is raised instead of concealed.

    Raises DecodeError for a file that cannot be opened or holds no video.
    """
    check_plain_file(path)
    # With the protocol before it, a colon in the name is a part of the name.
    file = path.open() if isinstance(path, Content) else f"file:{path}"
    try:
        container: av.container.InputContainer = av.open(
            file, container_options=dict(_OPTIONS), **_METADATA
        )
    except READ_ERRORS as error:
        raise decode_error(path, error) from None
    try:
        stream = choose_stream(path, container)
        context = stream.codec_context
        if context.width * context.height > MOST_PIXELS:
            raise DecodeError(
                f"cannot read {path}: it claims pictures of {context.width} x {context.height} "
                "pixels"
            )
        stream.thread_type = "NONE"  # the workers are the parallelism
        if context.codec.canonical_name == "vp8":
            # FFmpeg notices that a partition ends too early in several threads only.
            stream.thread_type, context.thread_count = "SLICE", 2
        if careful:
            context.options = dict(_DECODER)
    except DecodeError:
        container.close()
        raise
    return container, stream


def choose_stream(path: Source, container: av.container.InputContainer) -> av.VideoStream:
    """The stream that is the video: one marked as default, among those the largest, the first.

    Pictures attached to sound are none. Raises DecodeError where there is no video.
    """
    streams = container.streams.video
    if not streams:
        raise DecodeError(f"cannot read {path}: it holds no video stream")
    found = [stream for stream in streams if not is_attached(stream)]
    if not found:
        raise DecodeError(f"cannot read {path}: it holds no video, only a picture attached to it")
    brand = container.metadata.get("major_brand", "").strip()
    if len(found) > 1 and brand in _PICTURE_BRANDS:
        raise DecodeError(f"cannot read {path}: it is a picture in {len(found)} tiles ({brand})")
    usable = [stream for stream in found if stream.codec_context is not None]
    if not usable:
        raise DecodeError(f"cannot read {path}: its video has no codec that FFmpeg decodes")

    def rank(stream: av.VideoStream) -> tuple[bool, int, int]:
        context = stream.codec_context
        return _disposition(stream, "default"), context.width * context.height, -stream.index

    return max(usable, key=rank)


def seconds_per_tick(path: Source, stream: av.VideoStream) -> float:
    """The unit of a stream's time stamps. Raises DecodeError where the file does not say."""
    if stream.time_base is None:
        raise DecodeError(f"cannot read {path}: nothing says how long a unit of its times lasts")
    return float(stream.time_base)


def is_attached(stream: av.VideoStream) -> bool:
    """Whether a stream is a cover or a thumbnail, and not a video."""
    return _disposition(stream, "attached_pic") or _disposition(stream, "timed_thumbnails")


def _disposition(stream: av.VideoStream, name: str) -> bool:
    return bool(stream.disposition & getattr(type(stream.disposition), name))


def demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream; the last one is empty and makes the decoder give what it holds.

    Other empty packets show nothing, and would end the decoder. A stream that appears late in the
    file, which PyAV does not know, is passed over.
    """
    while True:
        try:
            for packet in container.demux(stream):
                if packet.size or packet.dts is None:
                    yield packet
            return
        except IndexError:
            continue


def is_key(stream: av.VideoStream, packet: av.Packet) -> bool:
    """Whether a packet, the first of a file, is meant to be a key frame.

    FFmpeg takes the mark from a packet that it cannot split into its parts; the container's index
    still has it. PyAV before 17 does not show the index.
    """
    entries = getattr(stream, "index_entries", None)
    if packet.is_keyframe or not entries:
        return packet.is_keyframe
    return entries[0].is_keyframe and entries[0].timestamp in (packet.pts, packet.dts)


def decode_error(path: Source, error: BaseException) -> VideonetError:
    """One sentence from a backend's error, without its source lines and stack traces.

    A DecodeError, but for what says nothing about the file: a process with too many open ones.
    """
    if is_out_of_files(error):
        return DataError(f"cannot open {path}: {too_many_files()}")
    return DecodeError(f"cannot read {path}: {reason_of(error)}")


def is_out_of_files(error: BaseException) -> bool:
    """Whether the process, and not the file, is why a file could not be opened."""
    return getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)


def reason_of(error: BaseException) -> str:
    """What an error says, in one line."""
    text = getattr(error, "strerror", None) or str(error)  # PyAV's errors carry one
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ?", "", text).strip()
    return text.splitlines()[0].strip(" .") if text else type(error).__name__
