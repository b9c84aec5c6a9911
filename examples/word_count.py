"""Count words: lines become words, words meet by key, and the last count of each word is its total."""

from sage.core.api import LocalEnvironment

LINES = ["to be or not to be", "that is the question", "to sleep to dream"]


def main() -> None:
    totals: dict[str, int] = {}
    env = LocalEnvironment("word-count")
    words = env.from_collection(LINES).flat_map(lambda line: [(word, 1) for word in line.split()], name="words")
    counts = words.key_by(lambda pair: pair[0]).reduce(lambda a, b: (a[0], a[1] + b[1]), name="count")
    counts.sink(lambda pair: totals.update([pair]), name="keep", parallelism=1)
    env.submit()
    for word, count in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        print(f"{count} {word}")


if __name__ == "__main__":
    main()
