import getpass
import sys
from pathlib import Path

import humanize
from tabulate import tabulate

from tally import __version__
from tally.words import most_common


def main() -> int:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "texts/rain.txt")
    text = path.read_text(encoding="utf-8")
    print(f"tally {__version__} for {getpass.getuser()}: {path.name} has {humanize.intcomma(len(text.split()))} words")
    print(tabulate(most_common(text, 3), headers=["word", "count"], tablefmt="github"))
    return 0


sys.exit(main())
