"""Recordings to transcripts: windows, fallback, segments and subtitles over an encoder-decoder.

May import `runtime/encoder_decoder` and what is below it. Read `transcription.py` first.
"""
