"""Looks for dead links in a built site: of pages, files, images, and places in pages.

    python -m docs.check_site site

Every relative link must lead to a file of the site and, where it names a place in a page, to an element with that id.
Links to other sites are not followed. Prints what is dead; exits with 1 where something is.
"""

import html.parser
import pathlib
import sys
import urllib.parse

from tf_nuat import command_line

TARGETS = ("href", "src", "data")


class Page(html.parser.HTMLParser):
    """What a page links to, and the ids of its elements."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.ids.add(value)
            elif name in TARGETS and value:
                self.links.append(value)


def dead_links(site):
    """Returns the dead links of the folder `site`, a list of pairs (page, link)."""
    site = pathlib.Path(site).resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise ValueError(f"site is {str(site)!r}, which has no pages; allowed: a folder that `make docs` has built")
    return [
        (str(path.relative_to(site)), link)
        for path, page in pages.items()
        for link in page.links
        if not _is_alive(link, path, pages, site)
    ]


def _is_alive(link, path, pages, site):
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:  # another site, or data in the page
        return True
    target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not (target.is_file() and target.is_relative_to(site)):
        return False
    place = urllib.parse.unquote(parts.fragment)
    return not place or target not in pages or place in pages[target].ids


def main(arguments):
    """Prints the dead links of a site; returns the exit status."""
    if len(arguments) != 1:
        raise ValueError(f"{len(arguments)} folders are given; allowed: one, the site")
    dead = dead_links(arguments[0])
    for page, link in dead:
        print(f"{page}: {link} leads nowhere", file=sys.stderr)
    return 1 if dead else 0


if __name__ == "__main__":
    command_line.main(main)
