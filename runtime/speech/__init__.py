"""Transcribes recordings with an encoder-decoder: windows, fallback, segments, subtitles.

May import `runtime/encoder_decoder` and what is below it. Read `transcription.py` first.
"""
