"""What pages link to outside ``docs/``, such as the results of benchmarks, comes into the site, under ``files/``."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)")


def _outside(link: str, page: File, config: MkDocsConfig) -> PurePosixPath | None:
    """The file that a page's link names, from the root of the repository, where that is a file outside ``docs/``."""
    docs = Path(config.docs_dir)
    target = PurePosixPath(posixpath.normpath(f"{docs.name}/{posixpath.dirname(page.src_uri)}/{link}"))
    return target if target.parts[0] != docs.name and (docs.parent / target).is_file() else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files."""
    for page in list(files.documentation_pages()):
        for link in LINK.findall(page.content_string):
            target = _outside(link, page, config)
            if target is not None and files.get_file_from_path(f"files/{target}") is None:
                source = str(Path(config.docs_dir).parent / target)
                files.append(File.generated(config, f"files/{target}", abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to the files where they are in the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def linked(match: re.Match[str]) -> str:
        target = _outside(match[0], page.file, config)
        return match[0] if target is None else posixpath.relpath(f"files/{target}", folder or ".")

    return LINK.sub(linked, markdown)
