"""Fetch a brick's files (under construction): the records are final."""

from galpipe.survey.files import BrickFiles, FileRecord, load_brick_files

__all__ = ["BrickFiles", "FileRecord", "load_brick_files"]
