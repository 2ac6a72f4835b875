"""What the keys of a configuration mean, and what a configuration is.

%(prog)s                                      the groups of keys
%(prog)s --help SOLVER                        the keys of a group, with types and defaults
%(prog)s --help SOLVER.BASE_LR                one key
%(prog)s --cfg K400/MVITv2_B.yaml KEY VALUE … the whole configuration, as YAML
%(prog)s --markdown > docs/config.md          the page of all keys
"""

from __future__ import annotations

import argparse
import sys
import textwrap

import videonet.config.pyslowfast as pyslowfast
from videonet.commands.arguments import Words, new_parser, parse
from videonet.config.checks import allowed
from videonet.config.key import Group, Key, dotted
from videonet.config.keys import GROUPS, KEYS, ROOT, nearest_key
from videonet.config.layers import OLD_NAMES
from videonet.config.values import TYPE_NAMES
from videonet.errors import ConfigError

WIDTH = 80  # characters per line of the help
OWN = "PySlowFast does not have this key."


def main(argv: Words = None, prog: str | None = None) -> None:
    """Explain keys, or print a configuration.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.

    Raises:
        ConfigError: there is no such key, or the configuration cannot be used.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(prog)
    if "--cfg" in words or any(word.startswith("--cfg=") for word in words):
        args = parse(parser, words)
        from videonet.config.loading import load_config

        print(load_config(args.cfg, [*args.overrides, *args.names]).dump(), end="")
        return
    args = parser.parse_args(words)
    if args.help and not args.names:
        parser.print_help()
        print()
    if args.markdown:
        print(markdown(), end="")
    elif args.names:
        print("\n\n".join(explain(name) for name in args.names))
    else:
        print(_overview())


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = new_parser(__doc__, prog, add_help=False)
    parser.add_argument("names", nargs="*", metavar="KEY", help="keys or groups to explain")
    parser.add_argument("-h", "--help", action="store_true", help="this, or what KEY means")
    parser.add_argument("--cfg", metavar="FILE", help="a YAML file, on disk or shipped by name")
    parser.add_argument("--markdown", action="store_true", help="all keys as a page of the docs")
    return parser


def explain(name: str) -> str:
    """The help of a key, or of all keys of a group.

    Args:
        name: dotted name of a key or group, also one of PySlowFast's.

    Raises:
        ConfigError: there is no such key or group.
    """
    if name in KEYS:
        return _explain_key(name, KEYS[name])
    if name and name in GROUPS:
        return _explain_group(name, GROUPS[name])
    if name in OLD_NAMES:
        return f"{name}\n  The old name of {OLD_NAMES[name]}.\n\n{explain(OLD_NAMES[name])}"
    theirs = pyslowfast.describe(name)
    if theirs is None:
        raise ConfigError(f"unknown key {name}: {nearest_key(name, [*KEYS, *GROUPS])}")
    return f"{name}\n{_indented(theirs)}"


def _overview() -> str:
    groups = {name: group for name, group in GROUPS.items() if name}
    width = max(map(len, groups))
    lines = [
        textwrap.fill(
            group.text,
            WIDTH,
            initial_indent=f"  {name:{width}}  ",
            subsequent_indent=" " * (width + 4),
        )
        for name, group in groups.items()
    ]
    alone = ", ".join(name for name in KEYS if "." not in name)
    return (
        "groups of keys:\n" + "\n".join(lines) + f"\n\n{ROOT.text.lower()[:-1]}:\n"
        f"{_indented(alone)}\n\nvideonet config --help NAME explains a group or a key."
    )


def _explain_group(name: str, group: Group) -> str:
    parts = [f"{name}\n{_indented(group.text)}"]
    for last, member in group.members.items():
        own = dotted(name, last)
        parts.append(
            _explain_key(own, member) if isinstance(member, Key) else _explain_group(own, member)
        )
    return "\n\n".join(parts)


def _explain_key(name: str, key: Key) -> str:
    limits = allowed(name)
    facts = f"{_type(key)}; default {_value(key.default)}" + (f"; {limits}" if limits else "")
    return f"{name}  ({facts})\n{_indented(_text(key))}"


def _text(key: Key) -> str:
    return f"{key.text} {OWN}" if key.own else key.text


def _type(key: Key) -> str:
    return f"None or {TYPE_NAMES[key.kind]}" if key.optional else TYPE_NAMES[key.kind]


def _value(value: object) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def _indented(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def markdown() -> str:
    """The page of all keys, docs/config.md."""
    parts = [
        "# The keys of the configuration",
        "This page is written by `videonet config --markdown`; `videonet config --help KEY` shows "
        "the same text. Keys that PySlowFast has too keep its names and meanings; those that it "
        "does not have are marked with \\*. Sizes are in pixels, learning rates per step, and a "
        "clip is one view of a video.",
        "Every command that reads a configuration takes overrides anywhere among its words, as "
        "`KEY VALUE` or `KEY=VALUE`.",
    ]
    for name, group in [*((n, g) for n, g in GROUPS.items() if n), ("", ROOT)]:
        parts.append(f"## {name or 'Keys without a group'}")
        if name:
            parts.append(group.text)
        rows = [
            "| key | default | type and range | meaning |",
            "|---|---|---|---|",
            *(
                _row(dotted(name, last), key)
                for last, key in group.members.items()
                if isinstance(key, Key)
            ),
        ]
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _row(name: str, key: Key) -> str:
    limits = allowed(name)
    kind = f"{_type(key)}: {limits}" if limits else _type(key)
    star = " \\*" if key.own else ""
    cells = (f"`{name}`{star}", f"`{_value(key.default)}`", kind, key.text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
