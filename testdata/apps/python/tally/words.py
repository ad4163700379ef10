from collections import Counter


def most_common(text: str, count: int) -> list[tuple[str, int]]:
    words = Counter(word.strip(".,;:").lower() for word in text.split())
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))[:count]
