"""The rules for photos, sidecar files and labels, the same for folders, tars and zips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from posixpath import commonpath, splitext

from .source import Blob, Source

SIDECARS = (".txt", ".json")
PICTURES = "jpg jpeg jpe jfif mpo png webp tif tiff gif bmp dib avif heic heif hif"
"""Suffixes of pictures. A file with another suffix is opened too, unless there is a picture with the same key."""
_PICTURES = frozenset(PICTURES.split())


def parts_of(name: str) -> tuple[str, ...]:
    """The folders and the file of a member's name. `./a`, `/a` and `../a` are `a`, as in unpacking."""
    return tuple(part for part in name.split("/") if part not in ("", ".", ".."))


def hidden(parts: Iterable[str]) -> bool:
    """Whether a file is hidden: `.git`, `._1.jpg` and other files that macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def label_of(parts: tuple[str, ...]) -> str | None:
    """The label of a photo: its first folder, if it is in one."""
    return parts[0] if len(parts) > 1 else None


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its suffix."""
    return splitext(name)[1].lower()[1:] in _PICTURES


def shared_root(names: Iterable[tuple[str, ...]]) -> int:
    """Number of outer folders of an archive that are not people: 1 for a tar of `photos/anna/1.jpg` and so on.

    These are the folders that all pictures share. If all pictures are directly in the last of them, it is a person.
    Reading stops as soon as the result is known.

    Args:
        names: `parts_of` of all members.
    """
    shared: str | None = None
    nested = False
    for *folders, file in names:
        if is_picture(file) and not hidden((*folders, file)):
            folder, before = "/".join(folders), shared
            shared = folder if before is None else commonpath([before, folder])
            nested = nested or not (before is None or before == folder)
            if not shared:
                return 0
    return shared.count("/") + nested if shared else 0


def sources_of(members: Mapping[tuple[str, ...], Blob], root: int = 0, people: bool = True) -> Iterator[Source]:
    """The inputs among some files, by name; those of a folder come before those of its subfolders.

    Args:
        members: `parts_of` of a file → its location. Hidden files are left out.
        root: Number of outer folders that are not people; see `shared_root`.
        people: Whether folders are people.
    """
    folders: defaultdict[tuple[str, ...], dict[str, Blob]] = defaultdict(dict)
    for parts, blob in members.items():
        if not hidden(parts):
            folders[parts[:-1]][parts[-1]] = blob
    for folder, files in sorted(folders.items(), key=lambda item: item[0]):
        for source in _sources_of_folder(files):
            parts = (*folder, source.name)
            label = label_of(parts[root:]) if people and source.photo else None
            yield replace(source, name="/".join(parts), label=label)


def _sources_of_folder(files: Mapping[str, Blob]) -> Iterator[Source]:
    """The inputs in one folder.

    A `.txt` or `.json` with the name of a photo is its sidecar. Other files that begin with `1.` beside a photo
    `1.jpg` are fields of the same sample, as in webdataset, not photos; pictures among them, such as `1.mask.png`, are
    counted. A number is not a field: `1.2.jpg` is another photo.
    """
    keys = {file.split(".")[0] for file in files if file.count(".") == 1 and is_picture(file)}
    photos = {file for file in files if _is_photo(file, keys)}
    stems = {splitext(file)[0] for file in photos}
    captions: defaultdict[str, list[tuple[str, Blob]]] = defaultdict(list)
    for file in sorted(files):
        if _is_sidecar(file):
            captions[splitext(file)[0]].append((splitext(file)[1].lower(), files[file]))
    for file in sorted(files):
        stem = splitext(file)[0]
        if file in photos:
            yield Source(file, files[file], sidecars=tuple(captions[stem]))
        elif _is_sidecar(file) and stem not in stems and file.split(".")[0] not in keys:
            yield Source(file, None, missing="sidecar-without-photo")
        elif is_picture(file):
            yield Source(file, None, missing="companion")


def _is_sidecar(file: str) -> bool:
    return splitext(file)[1].lower() in SIDECARS


def _is_photo(file: str, keys: set[str]) -> bool:
    key, *fields = file.split(".")
    if _is_sidecar(file):
        return False
    if key not in keys or not fields or (len(fields) == 1 and is_picture(file)):
        return True
    return fields[-1].isdigit() or (is_picture(file) and fields[0].isdigit())
