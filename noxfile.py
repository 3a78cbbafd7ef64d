"""The development loop: ``nox`` runs what .ci/run checks; ``-s long``, ``heavy`` and ``figures`` are fuller proofs."""

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def tests(session: nox.Session) -> None:
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "tests/", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")
    session.run("python", ".ci/requirements.py", "--check")
    session.run("python", ".ci/pages.py", "--check")


@nox.session
def long(session: nox.Session) -> None:
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "tests/", "-m", "long", "--timeout", "7200", *session.posargs)


@nox.session
def heavy(session: nox.Session) -> None:
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "tests/", "-m", "heavy", "--timeout", "7200", *session.posargs)


@nox.session
def figures(session: nox.Session) -> None:
    session.install("-e", ".[test]")
    session.run("python", "benchmarks/survive.py", *(session.posargs or ["--out", "survive-figures"]))


@nox.session
def audit(session: nox.Session) -> None:
    session.install(".")
    session.install("pip-audit", "cyclonedx-bom")
    session.run("python", ".ci/audit.py", "--rehearse")
    session.run("python", ".ci/audit.py", "--sbom", "llmopt.cdx.json", *session.posargs)
