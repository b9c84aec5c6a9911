"""A first pipeline: three words go in, three lines come out.

Run it with:  sage run local pipeline.py
"""

from sage.core.api import LocalEnvironment


def greet(word: str) -> str:
    """What this pipeline does to each record."""
    return f"Processed: {word}"


def main() -> None:
    env = LocalEnvironment("hello-sage")
    env.from_collection(["Hello", "World", "SAGE"]).map(greet).print()
    env.submit()


if __name__ == "__main__":
    main()
