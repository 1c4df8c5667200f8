"""Compiles every rule and mapping of the configuration, and reads every file it names, before the service starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sts.edge.tls import server_context
from sts.errors import StartError
from sts.expressions import (
    Expression,
    ExpressionError,
    as_attribute,
    check_condition,
    check_reads,
    check_use,
    compile_rule,
)
from sts.lookups.table_files import FileTable
from sts.mint.settings import KeysSettings, does_not_fit
from sts.options import file_faults
from sts.policy.mapping import reader_of
from sts.policy.rules import AUDIENCE_VARIABLES, REQUEST_FACTS
from sts.policy.settings import EVIDENCE_CLAIMS
from sts.settings.checks import Check, Parts
from sts.settings.faults import Finding, Trail, near, quote
from sts.trust.fetch import read_ca

Read = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class _Samples:
    """A sample row for every lookup: any row of its table."""

    files: Mapping[str, FileTable]

    def get(self, pair: tuple[str, str], /) -> Mapping[str, Any] | None:
        return self.files[pair[0]].sample()


@dataclass(frozen=True, slots=True)
class Compiler:
    """Compiles rules over `variables`; `known` has the attributes of some of them."""

    parts: Parts
    variables: frozenset[str]
    known: Mapping[str, frozenset[str]]
    _files: dict[str, FileTable | None] = field(default_factory=dict)

    def __call__(self, path: Trail, rule: str, read: Read | None = None, *, trial: bool = False) -> Iterator[Finding]:
        """Yield the faults of the rule at `path`. `read` converts its value; without `read` the rule is a condition.

        With `trial` the rule is evaluated beside the decision (`shadow`), and must not delay a request.
        """
        try:
            expression = compile_rule(rule, self.variables)
            check_reads(expression, self.known)
            if read is None:
                check_condition(expression)
        except ExpressionError as error:
            yield self._fault(path, error)
            return
        if trial and expression.lookups:
            hint = "map it to an attribute of the identity, and let the rule read that"
            yield Finding(path, "must not look up a table: an unavailable table would change the answer", hint)
            return
        looks_up = list(self._looks_up(path, expression))
        yield from looks_up
        if looks_up:
            return
        try:
            check_use(expression, read, self._samples(expression))
        except ExpressionError as error:
            yield self._fault(path, error)

    def _fault(self, path: Trail, error: ExpressionError) -> Finding:
        return Finding(path, f"is not a valid rule: {error}", f"CEL over {', '.join(sorted(self.variables))}")

    def _looks_up(self, path: Trail, expression: Expression) -> Iterator[Finding]:
        tables = self.parts.entries("tables")
        for table, column in sorted(expression.lookups):
            file = self._file(table)
            if table not in tables:
                yield Finding(path, f"there is no table {quote(table)}", near(table, tables))
            elif column and file is not None and column not in file.columns:
                yield Finding(path, f"the table {table} has no column {quote(column)}", near(column, file.columns))

    def _samples(self, expression: Expression) -> _Samples | None:
        """Return sample rows for the rule; None if a table is not a file, because its content is unknown."""
        files = {table: self._file(table) for table, _ in expression.lookups}
        known = {table: file for table, file in files.items() if file is not None}
        return _Samples(known) if len(known) == len(files) else None

    def _file(self, table: str) -> FileTable | None:
        """Return the table if it is a file that can be used."""
        if table not in self._files:
            settings = self.parts.tables.get(table)
            try:
                self._files[table] = settings.at_file() if settings is not None else None
            except StartError:
                self._files[table] = None  # reported as a fault of the file
        return self._files[table]


_ALWAYS: Final = frozenset({"subject", "scopes"})
_LOGIN: Final = frozenset({"auth_time", "acr", "amr"})
"""Facts about the login (OpenID Connect Core §2); a rule may read them even if no source maps them."""


def source_rules(parts: Parts) -> Iterator[Finding]:
    """Check that `require` is a condition over the credential, each mapping compiles, and `subject` is mapped."""
    for name, source in parts.sources.items():
        path = ("sources", name)
        if "subject" not in source.identity:
            hint = "such as `subject: claims.sub`: the minted token's subject"
            yield Finding((*path, "identity", "subject"), "`subject` is missing", hint)
        variables = frozenset({source.variable})
        known = {} if source.attributes is None else {source.variable: source.attributes}
        compiles = Compiler(parts, variables, known)
        if source.require is not None:
            yield from compiles((*path, "require"), source.require)
        for attribute, rule in source.identity.items():
            yield from compiles((*path, "identity", attribute), rule, reader_of(attribute))


def source_files(parts: Parts) -> Iterator[Finding]:
    """Check that the files of sources and tables can be used; disabled entries count, a reload may enable them."""
    for section, entries in (("sources", parts.sources), ("tables", parts.tables)):
        for name, entry in entries.items():
            for key, problem in entry.file_faults():
                yield Finding((section, name, key), problem)


def listener(parts: Parts) -> Iterator[Finding]:
    """Check that the files of our own TLS can be used."""
    tls = parts.listen.tls if parts.listen is not None else None
    if tls is None:
        return
    try:
        server_context(tls.cert_file, tls.key_file, () if tls.ca_file is None else (tls.ca_file,))
    except StartError as error:
        yield Finding(("listen", "tls"), str(error))


def audience_files(parts: Parts) -> Iterator[Finding]:
    """Check that the files of audiences can be used; disabled audiences count, a reload may enable them."""
    for name, audience in parts.audiences.items():
        for key, problem in audience.encryption.file_faults() if audience.encryption is not None else ():
            yield Finding(("audiences", name, "encryption", key), problem)


def opa_file(parts: Parts) -> Iterator[Finding]:
    """Check that the CA file of `opa` can be used."""
    for key, problem in file_faults("ca_file", parts.opa.ca_file if parts.opa else None, read_ca):
        yield Finding(("opa", key), problem)


def evidence(parts: Parts) -> Iterator[Finding]:
    """Check that no mapping writes a claim that `evidence: true` copies from the credential."""
    for name, audience in parts.audiences.items():
        for claim in EVIDENCE_CLAIMS if audience.evidence else ():
            if claim in audience.claims:
                problem = f"`evidence: true` writes the claim {claim} itself, from the credential"
                yield Finding(("audiences", name, "claims", claim), problem, "leave one of them out")


def audience_rules(parts: Parts) -> Iterator[Finding]:
    """Check that each rule of an audience or a route compiles and reads only attributes that some source maps."""
    compiles = Compiler(parts, AUDIENCE_VARIABLES, _known(parts))
    for name, audience in parts.audiences.items():
        path = ("audiences", name)
        if audience.allow is not None:
            yield from compiles((*path, "allow"), audience.allow)
        if audience.shadow is not None:
            yield from compiles((*path, "shadow"), audience.shadow, trial=True)
        for key, rules in (("claims", audience.claims), ("headers", audience.headers)):
            for written, rule in rules.items():
                yield from compiles((*path, key, written), rule, as_attribute)
    for name, route in parts.routes.items():
        if route.allow is not None:
            yield from compiles(("routes", name, "allow"), route.allow)


def _known(parts: Parts) -> dict[str, frozenset[str]]:
    """Return the attributes of an audience's variables; attributes of faulty and disabled sources count."""
    mapped: set[str] = set(_ALWAYS | _LOGIN)
    for entry in parts.entries("sources").values():
        identity = entry.get("identity")
        mapped.update(identity if isinstance(identity, dict) else ())
    return {
        "identity": frozenset(mapped),
        "actor": frozenset(mapped),
        "client": frozenset({"id"}),
        "request": frozenset(REQUEST_FACTS),
        "route": frozenset({"name"}),
    }


def schedule(parts: Parts) -> Iterator[Finding]:
    """Check that the lifetimes of keys and tokens fit together (RO-04)."""
    if parts.keys is None and "keys" in parts.written:
        return
    longest = max((audience.ttl for audience in parts.audiences.values()), default=0.0)
    for problem, advice in does_not_fit(parts.keys or KeysSettings(), longest):
        yield Finding(("keys",), problem, advice)


CHECKS: Final[tuple[Check, ...]] = (
    *(source_rules, source_files, opa_file, listener, audience_files, evidence, audience_rules, schedule),
)
"""The checks of this module."""
