"""What is on disk, and what it says of itself: the folder, the manifest and its records.

May import `errors`, `json_dataclasses` and `files`. Read `manifest.py` first.
"""
