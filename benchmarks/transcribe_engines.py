"""One engine as a worker: a JSON request a line on standard input, a JSON answer a line on standard output.

python transcribe_engines.py triform|faster-whisper MODEL THREADS
"""

from __future__ import annotations

import json
import resource
import sys
import time


class Triform:
    def __init__(self, model, threads):
        import triform

        self.model = triform.load_encoder_decoder(model, threads=threads)

    def transcribe(self, sound, beams):
        from triform import TranscribeOptions, open_audio, transcribe

        options = TranscribeOptions(num_beams=beams, temperatures=(0.0,), condition_on_previous_text=False)
        with open_audio(sound, lambda line: print(line, file=sys.stderr)) as audio:
            return "".join(segment.text for segment in transcribe(self.model, audio, options))


class FasterWhisper:
    def __init__(self, model, threads):
        from faster_whisper import WhisperModel

        self.model = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(self, sound, beams):
        segments, _ = self.model.transcribe(
            sound, language="en", beam_size=beams, temperature=0.0, condition_on_previous_text=False
        )
        return "".join(segment.text for segment in segments)


if __name__ == "__main__":
    kind, model, threads = sys.argv[1:]
    engine = {"triform": Triform, "faster-whisper": FasterWhisper}[kind](model, int(threads))
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        text = engine.transcribe(request["sound"], request["beams"])
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "text": text, "peak": peak}), flush=True)
