"""The snippets of docs/verify.md at work: taken from the page, built, and asked a line at a time.

Each language has two: one that verifies, one that decrypts and then verifies. They are built together, once a session.
"""

import base64
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from recipient import Pair
from web import Web

PAGE = Path(__file__).resolve().parents[2] / "docs" / "verify.md"
ISSUER = "https://sts.example.internal"

# What a backend adds to the snippets here: it answers each line, "verify <token>", "open <token>" or "zero floor"
# (maxAge, stale). Its arguments are the issuer, the address of the JWKS, and the files of its private JWKs.
DRIVERS = {
    "python": (
        "driver.py",
        """
import json, sys
from decrypt import Decrypter
from verify import Refused, Verifier
verifier = Verifier(sys.argv[1], "orders", sys.argv[2])
decrypter = Decrypter(verifier, *(json.load(open(name)) for name in sys.argv[3:]))
for line in sys.stdin:
    word, _, token = line.strip().partition(" ")
    if word == "zero":
        setattr(verifier, {"maxAge": "max_age"}.get(token, token), 0)
        print("done", flush=True)
        continue
    try:
        asked = decrypter if word == "open" else verifier
        print("good", asked.verify(token, "orders:read")["sub"], flush=True)
    except Refused as error:
        print("refused", error, flush=True)
""",
    ),
    "go": (
        "driver.go",
        """
package main

import ("bufio"; "fmt"; "os"; "strings"; "time")

func main() {
	verifier := NewVerifier(os.Args[1], "orders", os.Args[2])
	var jwks [][]byte
	for _, name := range os.Args[3:] {
		text, _ := os.ReadFile(name)
		jwks = append(jwks, text)
	}
	decrypter, err := NewDecrypter(verifier, jwks...)
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		word, token, _ := strings.Cut(lines.Text(), " ")
		verify := verifier.Verify
		if word == "open" {
			verify = decrypter.Verify
		}
		if word == "zero" {
			*map[string]*time.Duration{
				"floor": &verifier.floor, "maxAge": &verifier.maxAge, "stale": &verifier.stale,
			}[token] = 0
			fmt.Println("done")
		} else if claims, err := verify(token, "orders:read"); err != nil {
			fmt.Println("refused", err)
		} else {
			fmt.Println("good", claims["sub"])
		}
	}
}
""",
    ),
    "java": (
        "Driver.java",
        """
import java.io.*;
import java.nio.file.*;
import java.time.Duration;

class Driver {
    public static void main(String[] arguments) throws Exception {
        var verifier = new Verifier(arguments[0], "orders", arguments[1]);
        byte[][] jwks = new byte[arguments.length - 2][];
        for (int i = 0; i < jwks.length; i++) jwks[i] = Files.readAllBytes(Path.of(arguments[i + 2]));
        var decrypter = new Decrypter(verifier, jwks);
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null;) {
            if (line.startsWith("zero ")) {
                if (line.endsWith("floor")) verifier.floor = Duration.ZERO;
                if (line.endsWith("maxAge")) verifier.maxAge = Duration.ZERO;
                if (line.endsWith("stale")) verifier.stale = Duration.ZERO;
                System.out.println("done");
                continue;
            }
            try {
                var claims = line.startsWith("open ")
                        ? decrypter.verify(line.substring(5), "orders:read")
                        : verifier.verify(line.substring(7), "orders:read");
                System.out.println("good " + claims.get("sub"));
            } catch (java.security.GeneralSecurityException error) {
                System.out.println("refused " + error.getMessage());
            }
        }
    }
}
""",
    ),
    "javascript": (
        "driver.mjs",
        """
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { Decrypter } from "./decrypt.mjs";
import { Verifier } from "./verify.mjs";
const verifier = new Verifier(process.argv[2], "orders", process.argv[3]);
const decrypter = new Decrypter(verifier, ...process.argv.slice(4).map((name) => JSON.parse(readFileSync(name))));
for await (const line of createInterface({ input: process.stdin })) {
  const [word, token] = line.split(" ");
  if (word === "zero") {
    verifier[token] = 0;
    console.log("done");
    continue;
  }
  try {
    console.log("good", (await (word === "open" ? decrypter : verifier).verify(token ?? "", "orders:read")).sub);
  } catch (error) {
    console.log("refused", error.message);
  }
}
""",
    ),
}
FILES = {
    "python": ("verify.py", "decrypt.py"),
    "go": ("verify.go", "decrypt.go"),
    "java": ("Verifier.java", "Decrypter.java"),
    "javascript": ("verify.mjs", "decrypt.mjs"),
}
PROGRAMS = {"python": [], "go": ["go"], "java": ["javac", "java"], "javascript": ["node"]}


class Key:
    def __init__(self, kid):
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())
        numbers = self.private.public_key().public_numbers()
        self.jwk = {
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": "ES256",
            "kid": kid,
            "x": base64url(numbers.x.to_bytes(32, "big")),
            "y": base64url(numbers.y.to_bytes(32, "big")),
        }
        self.pem = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


class Service(Web):
    """Stands in for the token service: its JWKS over HTTP, which may fail, and how often it was fetched."""

    protocol = "HTTP/1.0"

    def __init__(self):
        super().__init__()
        self.key = Key("first")
        self.published = [self.key.jwk]
        self.pairs = [Pair(), Pair()]  # what its tokens may be encrypted to: the backend's keys, the new and the old
        self.fetches = 0
        self.status = 200
        self.uri = f"{self.url}/.well-known/jwks.json"

    def handle(self, handler):
        self.fetches += 1
        handler.reply({"keys": self.published}, self.status, {"Content-Type": "application/jwk-set+json"})


class Backend:
    """One snippet at work: a process that answers a line for a line."""

    def __init__(self, command, folder, service):
        files = [folder / f"{pair.kid}.json" for pair in service.pairs]
        for file, pair in zip(files, service.pairs, strict=True):
            file.write_text(json.dumps(pair.private))
        self.process = subprocess.Popen(
            [*command, ISSUER, service.uri, *map(str, files)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def verify(self, token):
        return self.ask(f"verify {token}")

    def open(self, token):
        return self.ask(f"open {token}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(members):
    return base64url(json.dumps(members).encode())


def snippets(language):
    """The snippets in one language as they stand on the page: to verify, and to decrypt."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(found) == 2, f"docs/verify.md has {len(found)} snippets in {language}"
    return found


def build(language, folder):
    """Write snippet and driver, compile where that is needed, and return the command that runs them."""
    driver, source = DRIVERS[language]
    for name, text in zip(FILES[language], snippets(language), strict=True):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / driver).write_text(source, encoding="utf-8")
    if language == "python":
        return [sys.executable, "-W", "error", driver]
    if language == "javascript":
        return ["node", driver]
    if language == "java":
        subprocess.run(
            ["javac", "-Xlint:all", "-Werror", "-J-XX:TieredStopAtLevel=1", *FILES[language], driver],
            cwd=folder,
            check=True,
            timeout=280,
        )
        return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", ".", "Driver"]
    (folder / "go.mod").write_text("module backend\n\ngo 1.21\n", encoding="utf-8")
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off"}  # it needs nothing but the standard library
    subprocess.run(["go", "build", "-o", "backend"], cwd=folder, check=True, timeout=280, env=environment)
    return ["./backend"]


def mint(key, *, algorithm="ES256", header=None, without=(), **claims):
    now = int(time.time())
    members = {
        "iss": ISSUER,
        "sub": "u|alice",
        "aud": "orders",
        "iat": now,
        "exp": now + 300,
        "jti": "j-1",
        "client_id": "edge-gateway",
        "scope": "orders:read orders:write",
        "act": {"sub": "edge-gateway", "iss": ISSUER, "act": {"sub": "é\n\u2028😀", "iss": "x"}},
        "roles": ["a", "b"],
        "admin": None,
    } | claims
    for name in without:
        members.pop(name, None)
    header = {"typ": "at+jwt", "kid": key.kid} | (header or {})
    if header["kid"] is None:
        del header["kid"]
    return jwt.encode(members, key.private, algorithm=algorithm, headers=header)
