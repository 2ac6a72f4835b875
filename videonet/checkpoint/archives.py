"""Checks of the zip archives that ``torch.save`` writes, before anything in them is unpickled."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

from videonet.errors import CheckpointError

ZIP = b"PK\x03\x04"
# What torch writes is stored as it is. An archive that was packed again may be smaller than its
# content, but not by as much as one that was made to fill the memory.
MOST_UNPACKED = 4  # times its own size
SLACK = 64 << 20  # bytes that it may grow beyond that
ENCRYPTED = 0x1  # bit of a record's flags
FOLDER = 0x10  # bit of its external attributes: torch's reader takes it for empty


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive does."""
    with path.open("rb") as file:
        return file.read(4) == ZIP


def check_archive(path: Path, name: str | Path) -> None:
    """Refuse an archive that holds something else than a checkpoint, is damaged, or is a bomb.

    Every record is compared with its CRC-32, and the directory with the records' own headers.
    A file saved with ``torch.serialization.set_crc32_options(False)`` has no CRCs to compare.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        CheckpointError: in one sentence.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            _refuse_other_kinds([record.filename for record in records], name)
            unpacked, size = sum(record.file_size for record in records), os.path.getsize(path)
            if unpacked > MOST_UNPACKED * size + SLACK:
                raise CheckpointError(
                    f"{name} would unpack from {size >> 10:,} KiB to {unpacked >> 20:,} MiB, which "
                    "is refused: torch.save stores tensors as they are"
                )
            damaged = _first_damaged(archive, path, size)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile fails in many ways on a damaged archive
        raise CheckpointError(f"{name} is a truncated or damaged checkpoint") from error
    if damaged is not None:
        raise CheckpointError(f"{name} is damaged: {damaged}")


def _refuse_other_kinds(members: list[str], name: str | Path) -> None:
    tails = {member.partition("/")[2] or member for member in members}
    if "archive_format" in tails or "models/model.json" in tails:
        raise CheckpointError(
            f"{name} is a program written by torch.export, not a checkpoint: give the checkpoint "
            "that it was exported from"
        )
    if "constants.pkl" in tails:
        raise CheckpointError(
            f"{name} is a TorchScript archive, which holds a program and is not opened; if you "
            "trust it, write its weights alone: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        )
    if members and all(member.endswith(".npy") for member in members):
        raise CheckpointError(f"{name} holds NumPy arrays (.npz), expected a checkpoint of PyTorch")
    if "data.pkl" not in tails:
        raise CheckpointError(
            f"{name} is a zip archive without a checkpoint in it (it holds "
            f"{', '.join(members[:3]) or 'nothing'})"
        )


def _first_damaged(archive: zipfile.ZipFile, path: Path, size: int) -> str | None:
    """What is wrong with the first record that is not as it was written."""
    if problem := _broken_directory(path, size):
        return problem
    records = archive.infolist()
    for record in records:
        if record.compress_type == zipfile.ZIP_STORED and record.compress_size != record.file_size:
            return f"its directory gives two sizes for {record.filename}"
    if any(record.CRC for record in records) and (damaged := archive.testzip()) is not None:
        return f"the checksum of its {damaged} does not match"
    return None


# APPNOTE.TXT of PKWARE, 4.3.7 (a record), 4.3.12 (its entry in the directory), 4.3.14 to 4.3.16
# (the ends of the directory); all fields after the signature.
RECORD = struct.Struct("<4sHHHHHLLLHH")
ENTRY = struct.Struct("<4sHHHHHHLLLHHHHHLL")
END = struct.Struct("<4sHHHHLLH")
LOCATOR_64 = struct.Struct("<4sLQL")
END_64 = struct.Struct("<4sQHHLLQQQQ")


def _broken_directory(path: Path, size: int) -> str | None:
    """What contradicts itself in an archive's directory, of which readers make different things.

    The directory has to lie between the records and its end without a gap, on one disk, and each
    entry has to repeat what the record's own header says.
    """
    problem = "its directory contradicts itself"
    with path.open("rb") as file:
        file.seek(max(0, size - END.size - 0xFFFF))
        tail = file.read()
        place = tail.rfind(b"PK\x05\x06")
        _, disk, first_disk, here, entries, length, start, comment = END.unpack_from(tail, place)
        end = size - len(tail) + place
        if disk or first_disk or here != entries or end + END.size + comment != size:
            return problem
        if end >= LOCATOR_64.size:
            file.seek(end - LOCATOR_64.size)
            sign, disk, place, disks = LOCATOR_64.unpack(file.read(LOCATOR_64.size))
            if sign == b"PK\x06\x07":
                file.seek(place)
                fields = END_64.unpack(file.read(END_64.size))
                sign, rest, _, _, first, second, here, entries64, length64, start64 = fields
                if (
                    (sign, disk, disks, first, second) != (b"PK\x06\x06", 0, 1, 0, 0)
                    or place + 12 + rest != end - LOCATOR_64.size
                    or here != entries64
                    or entries not in (entries64, 0xFFFF)
                    or length not in (length64, 0xFFFFFFFF)
                    or start not in (start64, 0xFFFFFFFF)
                ):
                    return problem
                end, entries, length, start = place, entries64, length64, start64
        if start + length != end:
            return problem
        file.seek(start)
        directory = file.read(length)
        seen, place = set(), 0
        for _ in range(entries):
            fields = ENTRY.unpack_from(directory, place)
            sign, _, needed, flags, method, *_, disk, _, attributes, offset = fields
            name_length, extra, comment = fields[10:13]
            name = directory[place + ENTRY.size : place + ENTRY.size + name_length]
            broken = sign != b"PK\x01\x02" or disk or attributes & FOLDER or flags & ENCRYPTED
            if broken or name in seen:
                return f"the entry of {name!r} in its directory is damaged"
            seen.add(name)
            place += ENTRY.size + name_length + extra + comment
            if offset == 0xFFFFFFFF:
                continue  # beyond 4 GiB: zipfile compares the names
            file.seek(offset)
            header = RECORD.unpack(file.read(RECORD.size))
            if header[:4] != (b"PK\x03\x04", needed, flags, method):
                return f"the entry of {name!r} in its directory is damaged"
        return problem if place != length else None
