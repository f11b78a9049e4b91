"""Sound: what it cost where the answer does not say, and a word of warning where nobody can know."""

from __future__ import annotations

import io
import logging
import tempfile
import wave
from pathlib import Path
from typing import Any

import pytest
from openai_harness import settled

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.instrumentation.uploads import sound_seconds

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # audio.translations


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_told", set())


def wav(seconds: float = 2.5) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\0" * int(32_000 * seconds))
    return buffer.getvalue()


def at(position: int, file: Any) -> Any:
    file.seek(position)
    return file


def on_disk(folder: Path) -> Path:
    path = folder / "sound.wav"
    path.write_bytes(wav())
    return path


UPLOADS: dict[str, Any] = {
    "bytes": lambda _folder: ("sound.wav", wav()),
    "bytes with a type": lambda _folder: ("sound.wav", wav(), "audio/wav"),
    "a file in memory": lambda _folder: ("sound.wav", at(100, io.BytesIO(wav()))),
    "an open file": lambda folder: on_disk(folder).open("rb"),
    "a path": on_disk,
}


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize(
    ("task", "form"), [("transcriptions", "text"), ("transcriptions", "vtt"), ("translations", None)]
)
async def test_the_length_of_a_wav_file_is_read_from_its_header(
    upload: str, task: str, form: str | None, client: Any, sim: Any, instrumented: Any, meter: Any, tmp_path: Path
) -> None:
    given = UPLOADS[upload](tmp_path)
    file = given[1] if isinstance(given, tuple) else given
    more = {} if form is None else {"response_format": form}
    await settled(getattr(client.audio, task).create(model="whisper-1", file=given, **more))
    totals = meter.totals.get()
    assert totals.usage == tb.TokenUsage(input_audio_seconds=2.5)
    assert totals.nano_usd == 250_000  # $0.006 a minute
    told = instrumented.span().attributes
    assert told["tokenbudget.usage.estimated"] is True, "the provider has not said it"
    assert wav() in sim.requests[0].body, "it arrived whole"
    if isinstance(file, io.IOBase):
        file.close()


async def test_what_the_answer_says_goes_before_the_header(
    client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    await settled(client.audio.transcriptions.create(model="whisper-1", file=("a.wav", wav())))
    assert meter.totals.get().usage.input_audio_seconds == sim.billed[0].usage.audio_seconds
    assert meter.totals.get().estimated_calls == 0


@pytest.mark.parametrize("form", ["text", "srt"])
async def test_where_the_length_cannot_be_told_a_warning_says_what_to_do(
    form: str, client: Any, sim: Any, instrumented: Any, meter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            await settled(
                client.audio.transcriptions.create(
                    model="whisper-1", file=("a.mp3", b"ID3 and so on"), response_format=form
                )
            )
    assert caplog.text.count("verbose_json") == 1
    assert meter.totals.get().unpriced_calls == 2
    assert {span.attributes["tokenbudget.cost.state"] for span in instrumented.spans()} == {"unknown"}


async def test_speech_by_tokens_warns_once(
    client: Any, sim: Any, instrumented: Any, meter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            await settled(client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello."))
        await settled(client.audio.speech.create(model="tts-1", voice="alloy", input="Hello."))
    assert caplog.text.count("stream_format='sse'") == 1
    assert caplog.text.count("billed by tokens") == 1


# --- headers -------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    return kind + (len(data) if size is None else size).to_bytes(4, "little") + data


FMT = chunk(b"fmt ", b"\1\0\1\0" + (8_000).to_bytes(4, "little") + (16_000).to_bytes(4, "little") + b"\2\0\x10\0")
HEAD = b"RIFF\0\0\0\0WAVE"


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        (HEAD + FMT + chunk(b"data", bytes(8_000)), 0.5),
        (HEAD + chunk(b"LIST", b"odd") + b"\0" + FMT + chunk(b"data", bytes(8_000)), 0.5),
        # Written by who did not know how long it would become, or cut off.
        (HEAD + FMT + chunk(b"data", bytes(8_000), 0xFFFFFFFF), 0.5),
        (HEAD + FMT + chunk(b"data", bytes(8_000), 0), 0.5),
        (HEAD + FMT + chunk(b"data", bytes(8_000), 80_000), 0.5),
        (HEAD + chunk(b"data", bytes(80)) + FMT, None),
        (HEAD + chunk(b"fmt ", bytes(16)) + chunk(b"data", bytes(80)), None),
        (HEAD + FMT, None),
        (HEAD[:10], None),
        (b"", None),
        (b"\xff\xfbMP3", None),
        (HEAD + chunk(b"junk", b"", 4_000_000_000) * 3, None),
        (HEAD + chunk(b"nope", b"") * 1_000 + FMT + chunk(b"data", bytes(80)), None),
    ],
)
def test_headers(content: bytes, seconds: float | None) -> None:
    assert sound_seconds([("file", ("a.wav", content))]) == seconds
    file = at(7, io.BytesIO(content))
    assert sound_seconds({"file": file}) == seconds
    assert file.tell() == 7
    with tempfile.NamedTemporaryFile() as named:
        named.write(content)
        assert sound_seconds([("file", named)]) == seconds
        assert named.tell() == len(content)


class Odd(io.RawIOBase):
    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        raise OSError("no")


@pytest.mark.parametrize(
    "files",
    [None, (), {}, [("file", object())], [("file", Odd())], [("file", Path("/no/such/file.wav"))],
     [("file", io.StringIO("text"))], [("file", ("a.wav",))], [("file", "text")]],
)  # fmt: skip
def test_what_cannot_be_read_is_left_alone(files: Any) -> None:
    assert sound_seconds(files) is None
