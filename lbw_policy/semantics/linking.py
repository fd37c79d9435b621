"""Follows `import` and `extends`: a policy and all the files it is made of, as one tree over one text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from attrs import define, field, frozen

from lbw_policy.diagnostics import Diagnostic, Severity, Source, Span, nearest
from lbw_policy.resources import presets
from lbw_policy.semantics.files import exists, read
from lbw_policy.semantics.inheriting import inherit
from lbw_policy.semantics.tightening import places_of
from lbw_policy.syntax import MAX_CHARACTERS, Parsed, nodes, parse

EDITION = 1
MOST_FILES = 64
MOST_DEPTH = 16
_BEGINS = re.compile(r"(?:\s|#[^\n]*+)*+lbw\b")
"""What a file of this language begins with, after comments."""
_SHARED = nodes.Import | nodes.Param | nodes.Signal | nodes.Layers | nodes.Let | nodes.Risk


@frozen
class File:
    """One file read: where it begins in the joined text, and what identifies it."""

    source: Source
    path: Path | None
    key: str
    begin: int
    tree: nodes.Tree


@frozen
class Heir:
    """One policy of a line of `extends`: its statements with those it imports and inherits.

    `params` are those it declares itself, so that the parent's of the same name do not count.
    """

    begin: int
    tree: nodes.Tree
    params: frozenset[str] = frozenset()
    parent: Heir | None = None
    extends: Span | None = None

    def own(self, given: dict[str, float], redeclared: frozenset[str]) -> dict[str, float]:
        """Return the values given for params of this policy that the one extending it does not declare anew."""
        declared = {node.name.text for node in self.tree.statements if isinstance(node, nodes.Param)}
        return {name: value for name, value in given.items() if name in declared - redeclared}


@frozen
class Linked:
    """A policy and its files. `found` has what is wrong with their syntax and with finding them."""

    source: Source
    heir: Heir
    declared: frozenset[str]
    found: tuple[Diagnostic, ...]

    def sorted(self, found: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
        """Return findings once each, file by file and by place; advice about other files than the first is left out."""
        order = {part: index for index, part in enumerate(self._files())}
        placed = {finding.located(): None for finding in found}
        kept = [one for one in placed if one.severity is Severity.ERROR or one.source == self._files()[0]]
        return tuple(sorted(kept, key=lambda finding: (order[finding.source], finding.sort_key())))

    def _files(self) -> tuple[Source, ...]:
        return tuple(part for _, part in self.source.parts) or (self.source,)

    def places(self, heir: Heir) -> dict[str, Span]:
        """Return where one policy of the line itself writes its limits and settings, by name."""
        size = len(self.source.part_at(heir.begin)[1].text)
        return places_of(heir.tree.statements, heir.begin, heir.begin + size)

    def parsed(self, heir: Heir) -> Parsed:
        """Return the whole tree of one policy of the line."""
        return Parsed(heir.tree, self.found, self.declared)


class _EveryName(frozenset[str]):
    """What an unread file may declare: any name at all, so that the use of none is reported."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)


def link(source: Source, path: Path | None = None) -> Linked:
    """Read a policy and all it imports and extends; relative paths start from the folder of `path`.

    A text without a path may only name presets and absolute paths. Never raises on any text.
    """
    linker = _Linker()
    root = linker.add(source, path, _key(path) if path else source.name)
    heir = linker.heir(root, (root,))
    declared = frozenset(linker.declared) if linker.whole else _EveryName()
    return Linked(linker.joined, heir, declared, tuple(dict.fromkeys(linker.found)))


@define
class _Linker:
    sources: list[Source] = field(factory=list)
    joined: Source = field(factory=lambda: Source("", ""))
    found: list[Diagnostic] = field(factory=list)
    declared: set[str] = field(factory=set)
    whole: bool = True
    """Whether every file that is named could be read."""
    _files: dict[str, File] = field(factory=dict)

    def add(self, source: Source, path: Path | None, key: str) -> File:
        """Take in one more file."""
        begin = len(self.joined.text) + 1 if self.sources else 0
        self.sources.append(source)
        self.joined = Source.joined(self.sources)
        parsed = parse(self.joined)
        self.found += parsed.diagnostics
        self.declared |= parsed.declared
        file = self._files[key] = File(source, path, key, begin, parsed.tree)
        if begin and not parsed.diagnostics:
            self._check_edition(file)
        return file

    def heir(self, file: File, line: tuple[File, ...]) -> Heir:
        """Return a policy with its imports, and with what it inherits from the one it extends."""
        own = tuple(self._with_imports(file, (file,), {file.key}))
        params = frozenset(node.name.text for node in own if isinstance(node, nodes.Param))
        word = _extends(file.tree)
        parent = self._parent(file, word, line) if word else None
        if word is None or parent is None:
            return Heir(file.begin, nodes.Tree(file.tree.edition, own), params)
        grown = self.heir(parent, (*line, parent))
        whole = nodes.Tree(file.tree.edition, inherit(own, grown.tree.statements))
        return Heir(file.begin, whole, params, grown, word.span)

    # Imports

    def _with_imports(self, file: File, chain: tuple[File, ...], seen: set[str]) -> list[nodes.Statement]:
        """Return the statements of a file, with those of the files it imports in the place of each import."""
        found: list[nodes.Statement] = []
        for node in file.tree.statements:
            if isinstance(node, nodes.Import):
                found += self._imported(file, node.path, chain, seen)
            else:
                found.append(node)
        return found

    def _imported(self, file: File, word: nodes.Word, chain: tuple[File, ...], seen: set[str]) -> list[nodes.Statement]:
        target = self._open(file, word, chain)
        if target is None or target.key in seen:  # a file that two others import counts once
            return []
        seen.add(target.key)
        for node in target.tree.statements:
            if not isinstance(node, _SHARED):
                kind = type(node).__name__.lower()
                self._error("LBW603", f"a file that is imported cannot hold `{kind}`", node.span,
                            "it may hold params, signals, layers, lets, risks and imports")  # fmt: skip
        found = self._with_imports(target, (*chain, target), seen)
        return [node for node in found if isinstance(node, _SHARED)]

    # Parents

    def _parent(self, file: File, word: nodes.Word, line: tuple[File, ...]) -> File | None:
        if self.joined.text[word.span.start : word.span.start + 1] == '"':
            return self._open(file, word, line)
        shipped = presets()
        if word.text in shipped:
            return self._read(word, shipped[word.text], str(shipped[word.text]), line)
        if word.text:
            meant = nearest(word.text, shipped)
            advice = f"did you mean `{meant}`?" if meant else f"presets: {', '.join(shipped)}; a path stands in quotes"
            self._error("LBW606", f"unknown preset `{word.text}`", word.span, advice)
        self.whole = False
        return None

    # Files

    def _open(self, file: File, word: nodes.Word, chain: tuple[File, ...]) -> File | None:
        """Return the file that a path in another one names."""
        if not word.text:
            self.whole = False
            if word.span.start < word.span.end:  # else the parser has reported it
                self._error("LBW602", "expected the path of a file, found an empty text", word.span, None)
            return None
        path = Path(word.text)
        if not path.is_absolute() and file.path is None:
            self.whole = False
            self._error("LBW605", f"expected an absolute path, found `{word.text}`", word.span,
                        "a text without a file has no folder to look in: save it, or write the whole path")  # fmt: skip
            return None
        path = path if file.path is None else file.path.parent / path
        return self._read(word, path, str(PurePath(file.source.name).parent / word.text), chain)

    def _read(self, word: nodes.Word, path: Path, name: str, chain: tuple[File, ...]) -> File | None:
        key = _key(path)
        if any(file.key == key for file in chain):
            self.whole = False
            start = next(at for at, file in enumerate(chain) if file.key == key)
            names = " -> ".join([file.source.name for file in chain[start:]] + [chain[start].source.name])
            self._error("LBW601", f"the file leads back to itself: {names}", word.span, "take one of the steps out")
            return None
        if key in self._files:
            return self._files[key]
        found = read(path, name) if _regular(path) else _no_file(path, name)
        if isinstance(found, Diagnostic):
            shipped = f"a preset is named without quotes: `extends {word.text}`" if word.text in presets() else None
            self.whole = False
            self._error("LBW602", found.message, word.span, found.help or shipped)
            return None
        if not _BEGINS.match(found.text):
            # INVARIANT: of a file that is none of ours nothing is shown: a policy from elsewhere may name any file.
            self.whole = False
            self._error("LBW111", f"expected a file that begins with `lbw {EDITION}`, found another", word.span,
                        "it names the edition of the language the file is written in")  # fmt: skip
            return None
        return self.add(found, path, key) if self._fits(word, found, chain) else None

    def _fits(self, word: nodes.Word, source: Source, chain: tuple[File, ...]) -> bool:
        """Tell whether there is room for one more file; report it if not."""
        most, found = None, None
        if len(self.sources) >= MOST_FILES or len(chain) >= MOST_DEPTH:
            most, found = f"at most {MOST_FILES} files, {MOST_DEPTH} deep", "more"
        elif len(self.joined.text) + len(source.text) > MAX_CHARACTERS:
            most = f"at most {MAX_CHARACTERS:_} characters in all files together"
            found = f"{len(self.joined.text) + len(source.text):_}"
        if most is None:
            return True
        self.whole = False
        self._error("LBW604", f"expected {most}, found {found}", word.span, "import less, or join files")
        return False

    def _check_edition(self, file: File) -> None:
        edition = file.tree.edition
        if edition is not None and edition.number.value != EDITION:
            message = f"expected `lbw {EDITION}`, found an unknown edition"
            self._error("LBW110", message, edition.span, "a newer edition needs a newer lbw_policy")

    def _error(self, code: str, message: str, span: Span, advice: str | None) -> None:
        self.found.append(Diagnostic(code, message, self.joined, span, advice).located())


def _extends(tree: nodes.Tree) -> nodes.Word | None:
    clauses = [clause for node in tree.statements if isinstance(node, nodes.Policy) for clause in node.clauses]
    values = [clause.value for clause in clauses if clause.name == "extends"]
    return values[0] if values and isinstance(values[0], nodes.Word) else None


def _key(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a null byte, or links without end
        return str(path)


def _regular(path: Path) -> bool:
    """Tell whether a path is a plain file: reading from a pipe or a device might never end."""
    return exists(path) and path.is_file()


def _no_file(path: Path, name: str) -> Diagnostic:
    reason = "not a file" if exists(path) else "no such file or directory"
    return Diagnostic("LBW001", f"cannot read the file: {reason}", Source(name, ""))
