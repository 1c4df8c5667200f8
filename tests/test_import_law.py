"""The house's law as failing tests: which part may import which, where each library may stand, who may read the clock.

The list is the one of docs/architecture.md, from the top down. A part may import what stands on a line below its own.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEVELS = [
    {"__main__"},  # `python -m sts`
    {"cli"},
    {"server"},
    {"app"},
    {"settings"},
    {"edge"},
    {"exchange"},
    {"clients", "credentials", "policy", "mint", "cache", "state", "audit"},
    {"lookups"},
    {"x509"},
    {"trust"},
    {"jose", "expressions", "redis_link"},
    {"resilience"},
    {"telemetry"},
    {"options", "model", "labels"},
    {"errors"},
]
MAY_IMPORT_KEYS = {"cli", "server", "app", "settings", "edge", "mint"}
FREE_OF_KEYS = {"keys.files"}  # it says how files are made, for every part that makes one
# library -> the modules that may import it, as prefixes of "sts.part.module"
SEAMS = {
    "flask": ("sts.edge.", "sts.app"),
    "werkzeug": ("sts.edge.", "sts.app"),
    "joserfc": ("sts.jose", "keys."),
    "cel_expr_python": ("sts.expressions",),
    "re2": ("sts.expressions.patterns",),
    "urllib3": ("sts.trust.fetch", "sts.cli."),
    "requests": (),
    "http.client": ("sts.cli.",),  # the commands that call a running service
    "urllib.request": (),
    "gunicorn": ("sts.server.",),
    "pyrate_limiter": ("sts.clients.failures",),
    "jwt": (),
    "authlib": (),
}
MAY_READ_ENVIRONMENT = ("sts.settings",)
MAY_READ_CLOCK = ("sts.app", "sts.cli.", "sts.server.")
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb"}
CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
}


class Module:
    """What one module imports (absolute names) and which dotted names it uses, resolved through its imports."""

    def __init__(self, name, source, *, package=False):
        self.name = name
        self.package = name if package else name.rpartition(".")[0]
        self.imports = []  # (line, module, names)
        self.aliases = {}
        self.uses = []  # (line, dotted name)
        self._visit(ast.parse(source), typing_only=False)

    @classmethod
    def read(cls, path):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = parts[-1] == "__init__"
        return cls(".".join(parts[:-1] if package else parts), path.read_text(encoding="utf-8"), package=package)

    def _visit(self, node, *, typing_only):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            typing_only = True
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._imported(node.lineno, alias.name, [], typing_only=typing_only)
                self.aliases[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            module = self._absolute(node)
            self._imported(node.lineno, module, [alias.name for alias in node.names], typing_only=typing_only)
            for alias in node.names:
                self.aliases[alias.asname or alias.name] = f"{module}.{alias.name}"
                self.uses.append((node.lineno, f"{module}.{alias.name}"))
        elif isinstance(node, ast.Attribute) and (dotted := self._dotted(node)):
            self.uses.append((node.lineno, dotted))
        for child in ast.iter_child_nodes(node):
            self._visit(child, typing_only=typing_only)

    def _absolute(self, node):
        if not node.level:
            return node.module
        base = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])

    def _imported(self, line, module, names, *, typing_only):
        # `from sts import jose` imports the part `sts.jose`; the same for a package of ours at any depth.
        for target in [f"{module}.{name}" for name in names] if module in {"sts", "keys"} else [module]:
            self.imports.append((line, target, names, typing_only))

    def _dotted(self, node):
        if isinstance(node, ast.Attribute):
            base = self._dotted(node.value)
            return f"{base}.{node.attr}" if base else None
        return self.aliases.get(node.id) if isinstance(node, ast.Name) else None


def part(module):
    """`sts.policy.decide` -> `policy`; the bare package has none."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def level(name):
    return next((depth for depth, parts in enumerate(LEVELS) if name in parts), None)


def stands_in(module, prefixes):
    return any(module == prefix or module.startswith(prefix) for prefix in prefixes)


def faults_of_direction(module):
    mine = part(module.name)
    for line, target, _, _ in module.imports:
        theirs = part(target)
        if target.partition(".")[0] == "keys":
            if not (module.name.startswith("keys") or mine in MAY_IMPORT_KEYS or target in FREE_OF_KEYS):
                yield f"{module.name}:{line} imports {target}; keys is for {sorted(MAY_IMPORT_KEYS)}"
        elif target.partition(".")[0] == "sts" and theirs and mine != theirs:
            if module.name.startswith("keys"):
                yield f"{module.name}:{line} imports {target}; keys imports nothing of sts"
            elif None not in (level(mine), level(theirs)) and level(mine) >= level(theirs):
                yield f"{module.name}:{line} imports {target}, which does not stand below {mine}"


def faults_of_seams(module):
    for line, target, _, _ in module.imports:
        for library, allowed in SEAMS.items():
            if (target == library or target.startswith(f"{library}.")) and not stands_in(module.name, allowed):
                yield f"{module.name}:{line} imports {target}; its place is {allowed or 'nowhere in the product'}"
        if target.partition(".")[0] == "redis" and "redis" not in module.name.rpartition(".")[2]:
            yield f"{module.name}:{line} imports {target}; its place is *redis*.py"


def faults_of_surroundings(module):
    for line, used in module.uses:
        if used in ENVIRONMENT and not stands_in(module.name, MAY_READ_ENVIRONMENT):
            yield f"{module.name}:{line} reads {used}; the environment belongs to settings.py"
        if used in CLOCKS and not stands_in(module.name, MAY_READ_CLOCK):
            yield f"{module.name}:{line} reads {used}; the clock is an argument"


ALL = [Module.read(path) for folder in ("sts", "keys") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_module_of_sts_belongs_to_a_part_that_has_a_level():
    assert [m.name for m in ALL if m.name.startswith("sts.") and level(part(m.name)) is None] == []


@pytest.mark.parametrize(
    "law", [faults_of_direction, faults_of_seams, faults_of_surroundings], ids=lambda f: f.__name__
)
def test_the_law_of_imports_holds(law):
    assert [fault for module in ALL for fault in law(module)] == []


@pytest.mark.parametrize(
    ("law", "name", "source"),
    [
        (faults_of_direction, "sts.policy.decide", "from sts.mint.minter import Minter"),
        (faults_of_direction, "sts.errors", "import sts.model"),
        (faults_of_direction, "sts.jose", "from sts import trust"),
        (faults_of_direction, "sts.clients.secret", "from ..audit import Trail"),
        (faults_of_direction, "sts.policy.decide", "def f():\n    import keys.keyring"),
        (faults_of_direction, "sts.labels", "from keys.seal import Sealer"),
        (faults_of_direction, "keys.keyring", "from sts import errors"),
        (faults_of_direction, "sts.settings.document", "from sts.app import build"),
        (faults_of_seams, "sts.exchange", "import flask"),
        (faults_of_seams, "sts.credentials.jwt", "from joserfc.jws import deserialize_compact"),
        (faults_of_seams, "sts.cache.tokens", "import redis.client"),
        (faults_of_surroundings, "sts.exchange", "import os\nhome = os.environ['HOME']"),
        (faults_of_surroundings, "sts.exchange", "from os import getenv"),
        (faults_of_surroundings, "sts.exchange", "import time\nclock = time.time"),
        (faults_of_surroundings, "keys.rotation", "from datetime import datetime as d\nnow = d.now()"),
    ],
)
def test_a_breach_is_seen(law, name, source):
    assert list(law(Module(name, source)))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("sts.exchange", "from sts.clients.registry import Clients\nfrom sts.errors import Refusal"),
        ("sts.policy.decide", "from sts.policy.rules import Rules\nfrom . import mapping"),
        ("sts.labels", "from keys.files import hand_over"),
        ("sts.mint.minter", "from keys.keyring import Keyring\nimport sts.jose"),
        ("sts.app", "import time\nimport flask\nclock = time.time"),
        ("sts.credentials.jwt", "import time\nstarted = time.monotonic()"),
        ("sts.cache.shared_redis", "import redis"),
        ("keys.jwks", "from joserfc.jwk import ECKey\nfrom keys.record import Record"),
    ],
)
def test_what_the_law_allows_is_not_reported(name, source):
    module = Module(name, source)
    laws = (faults_of_direction, faults_of_seams, faults_of_surroundings)
    assert [fault for law in laws for fault in law(module)] == []
