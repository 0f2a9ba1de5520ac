"""One file from one address: in parts, resumed, checked, and put in place only when it is whole and right.

While it is fetched, the file is `<name>.part`, and `<name>.part.json` notes the address, the version that the server states
(ETag), the size, and how much of each piece is on the disk. A run that ends early leaves both. The next run continues there, if
the server still offers the same version or the checksum is the same.

huggingface_hub, which most ComfyUIs have, is used for the token that it keeps, not for the transfer: half of the files are on
other hosts, it does not compare a file with a checksum that the caller knows, and its resuming and its parallel parts depend on
the version and on the back end that happen to be installed.
"""

import contextlib
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ...errors import DownloadFailed
from ..atomic import PARTIAL, publish, write_atomically
from ..header import tensor_shapes
from ..sizes import size_text
from .progress import Progress, duration_text
from .web import Answer, Interruption, Web, short

PIECE = 1 << 26
"""Bytes of a piece that one connection fetches at a time."""
BLOCK = 1 << 18
TRIES = 5
"""Attempts without a new byte before a run gives up."""
LONGEST_PAUSE = 20.0
SAVE_SECONDS = 3.0
SPARE = 1 << 26
"""Bytes that stay free on the disk."""
LARGEST_UNKNOWN = 20_000_000_000
"""Bytes. Most that is read from a server that does not say how long the file is."""
RESTARTS = 2


@dataclass(frozen=True)
class Request:
    """A file to fetch."""

    name: str
    address: str
    target: Path
    """Where it goes. Its folder is made if it does not exist."""
    page: str
    """Where a user finds the file, for messages."""
    size: int | None = None
    """Bytes, if known."""
    sha256: str | None = None
    md5: str | None = None


class _Changed(Exception):
    """The server now offers another version, or answers a part with the whole file."""


@dataclass
class _Piece:
    start: int
    stop: int | None
    """One past the last byte; None if the size is unknown."""
    done: int = 0


@dataclass
class _Part:
    """The unfinished file and its record."""

    path: Path
    address: str
    size: int | None = None
    tag: str | None = None
    sha256: str | None = None
    pieces: list[_Piece] = field(default_factory=list)

    @property
    def record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def done(self) -> int:
        return sum(piece.done for piece in self.pieces)

    def load(self) -> "_Part | None":
        """Return what an earlier run has left, or None."""
        try:
            note = json.loads(self.record.read_text(encoding="utf-8"))
            pieces = [_Piece(*map(int, piece)) for piece in note["pieces"]]
            old = _Part(self.path, str(note["address"]), int(note["size"]), note["tag"], note["sha256"], pieces)
            ends = [0, *(piece.stop for piece in pieces)]
            whole = all(p.start == end and 0 <= p.done <= (p.stop or 0) - p.start for p, end in zip(pieces, ends, strict=False))
            return old if whole and ends[-1] == old.size == self.path.stat().st_size else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self) -> None:
        """Note how far each piece is; the bytes themselves are written before."""
        pieces = [(piece.start, piece.stop, piece.done) for piece in self.pieces]
        note = {"address": self.address, "size": self.size, "tag": self.tag, "sha256": self.sha256, "pieces": pieces}
        write_atomically(self.record, lambda partial: partial.write_text(json.dumps(note), encoding="utf-8"))

    def begin(self, piece: int) -> None:
        """Start with an empty file, divided into pieces."""
        if self.size is None:
            self.pieces = [_Piece(0, None)]
        else:
            starts = range(0, self.size, piece)
            self.pieces = [_Piece(start, min(start + piece, self.size)) for start in starts]
        self.save()  # marks the file as this command's before it exists
        with self.path.open("wb") as file:
            file.truncate(self.size or 0)

    def remove(self) -> None:
        """Remove the file and its record."""
        for path in (self.path, self.record):
            path.unlink(missing_ok=True)


def fetch(
    request: Request,
    web: Web,
    *,
    connections: int = 4,
    piece: int = PIECE,
    pause: float = 1.0,
    say: Callable[[str], object] = print,
    progress: Callable[[str, int | None], Progress] = Progress,
) -> Path:
    """Fetch a file.

    Args:
        request: The file.
        web: Opens addresses.
        connections: Most parts at a time.
        piece: Bytes of a part.
        pause: Seconds before the second attempt; they double with each further one.
        say: Takes a line about something that the user may want to know.
        progress: Makes what shows the progress of a name and a size.

    Returns:
        Its path.

    Raises:
        DownloadFailed: The file could not be fetched, is not the expected one, or a file is in its place. What is good is kept.
        OSError: The disk cannot be written to.
    """
    if request.target.exists():
        raise DownloadFailed(f"{request.target} exists and is kept. To fetch the file again, rename or remove it first.")
    request.target.parent.mkdir(parents=True, exist_ok=True)
    path = request.target.with_name(request.target.name + PARTIAL)
    with _locked(path):
        if path.exists() and not _Part(path, "").record.exists():
            raise DownloadFailed(
                f"{path} exists, but this command has not begun it: it may be another program's download. Rename or remove it, "
                "then run the same command again."
            )
        run = _Run(request, web, path, connections, piece, pause, say, progress)
        run.transfer()
        run.check()
        try:
            publish(path, request.target)
        except FileExistsError as error:
            raise DownloadFailed(f"{request.target} appeared meanwhile and is kept; what was fetched is {path}.") from error
        run.part.record.unlink(missing_ok=True)
    return request.target


@dataclass
class _Run:
    """One run of `fetch`."""

    request: Request
    web: Web
    path: Path
    connections: int
    piece: int
    pause: float
    say: Callable[[str], object]
    progress: Callable[[str, int | None], Progress]
    stop: threading.Event = field(default_factory=threading.Event)
    whole: bool = False
    """Whether the server is asked for the whole file only, because it has failed to serve parts."""
    tagged: bool = True
    """Whether each part must have the same ETag."""
    notes: list[str] = field(default_factory=list)
    """What the connections report, to be shown between two lines of progress."""
    parts: bool = False
    """Whether the file is fetched in parts, so that what is there can be resumed."""

    def __post_init__(self):
        self.part = _Part(self.path, self.request.address)
        self.sha256 = self.request.sha256

    def transfer(self) -> None:
        """Fetch everything that is not on the disk yet."""
        for restart in range(RESTARTS + 1):
            answer = self.probe()
            try:
                self.prepare(answer, again=restart > 0)
                self.stop.clear()
                self.parts = answer.status == 206
                if self.parts:
                    self.in_parts()
                else:
                    self.in_one(answer)
                return
            except _Changed as change:
                self.tagged = self.sha256 is None  # some mirrors tag each answer anew; a checksum says more than a tag
                self.part.remove()
                self.say(f"{change}: starting again")
            finally:
                answer.close()
        raise DownloadFailed(
            f"{short(self.request.address)} offered another version of the file in each of {RESTARTS + 1} attempts. "
            f"Try again later, with another mirror (HF_ENDPOINT), or get {self.request.name} from {self.request.page}."
        )

    # What the server offers

    def probe(self) -> Answer:
        """Ask for the first byte, which says whether the server serves parts. Without parts, the answer is the whole file."""
        headers = {} if self.whole else {"Range": "bytes=0-0"}
        answer = self.patiently(lambda: self.web.open(self.request.address, headers))
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml"):
            answer.close()
            raise DownloadFailed(
                f"Expected {self.request.name} from {short(answer.address)}, got a web page (a login, a notice or an error). "
                f"Get the file from {self.request.page} in a browser."
            )
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            answer.close()
            raise DownloadFailed(
                f"{short(answer.address)} sends the file compressed on the way ({answer.headers['Content-Encoding']}), which "
                f"was not asked for. Get {self.request.name} from {self.request.page} in a browser."
            )
        if answer.status == 200 and answer.length == 0:
            answer.close()
            raise DownloadFailed(f"{short(answer.address)} sends an empty file. {self.way_out()}")
        if answer.status == 416 or (answer.status == 206 and answer.content_range is None):
            answer.close()
            if self.whole:
                raise DownloadFailed(f"{short(answer.address)} does not serve the whole file. {self.way_out()}")
            self.whole = True
            return self.probe()
        return answer

    def prepare(self, answer: Answer, again: bool) -> None:
        """Compare what is offered with what is expected, and with what an earlier run has left."""
        size = answer.content_range[2] if answer.status == 206 and answer.content_range else answer.length
        for expected, origin in ((self.request.size, "the catalogue"), (answer.size, "Hugging Face")):
            if expected is not None and size is not None and expected != size:
                raise DownloadFailed(
                    f"Expected {expected:,} bytes for {self.request.name} ({origin}), but {short(answer.address)} offers "
                    f"{size:,}. It is another version or not the file. {self.way_out()}"
                )
        if self.request.sha256 and answer.sha256 and answer.sha256 != self.request.sha256:
            raise DownloadFailed(
                f"Expected SHA-256 {self.request.sha256} for {self.request.name}, but {short(self.request.address)} offers "
                f"{answer.sha256}: another version. Nothing was fetched. Look for the right one on {self.request.page}."
            )
        size = size if size is not None else self.request.size or answer.size
        self.sha256 = self.request.sha256 or answer.sha256
        if size is None and not (self.sha256 or self.request.md5):
            raise DownloadFailed(
                f"{short(answer.address)} does not say how long {self.request.name} is, and no checksum is known, so a broken "
                f"download could not be noticed. Get it from {self.request.page} in a browser."
            )
        old = None if again else self.part.load()
        self.part = _Part(self.path, self.request.address, size, answer.tag, self.sha256)
        if old is not None and answer.status == 206 and self.same(old):
            self.part.pieces = old.pieces
            self.say(f"resuming at {old.done / max(size or 1, 1):.0%} ({size_text(old.done)} are there)")
        elif old is not None and old.done:
            why = "the server sends the file only as a whole" if answer.status == 200 else "the file has changed on the server"
            self.say(f"{why}: starting again ({size_text(old.done)} were there)")
        if not self.part.pieces:
            self.part.remove()
        free = shutil.disk_usage(self.path.parent).free
        left = (size or 0) - self.part.done
        if free < left + SPARE:
            raise DownloadFailed(
                f"{self.request.name} needs {size_text(left + SPARE)} more on the disk of {self.path.parent}, which has "
                f"{size_text(free)} free. Make room and run the same command again."
            )
        if not self.part.pieces:
            self.part.begin(self.piece)

    def same(self, old: _Part) -> bool:
        """Whether what an earlier run has left is of the version that is offered now."""
        if old.size != self.part.size:
            return False
        if old.sha256 and self.sha256:
            return old.sha256 == self.sha256
        return old.address == self.part.address and old.tag is not None and old.tag == self.part.tag

    # The transfer

    def in_one(self, answer: Answer) -> None:
        """Read the whole file from one answer; where it breaks off, from the beginning again."""
        bar = self.progress(self.request.name, self.part.size)
        for attempt in range(TRIES):
            try:
                with self.path.open("r+b") as file:
                    self.part.pieces = [_Piece(0, self.part.size)]
                    for _ in self.copied(answer, file, self.part.pieces[0]):
                        bar.show(self.part.done)
                bar.end()
                return
            except Interruption as error:
                bar.end()
                if attempt == TRIES - 1:
                    raise self.gave_up(error) from error
                self.say(f"{error}; the server sends the file only as a whole: starting again")
                self.wait(error.wait if error.wait is not None else self.pause)
            finally:
                answer.close()
            self.whole = True
            answer = self.probe()
            if answer.length != self.part.size and answer.length is not None:
                answer.close()
                raise _Changed("the file has changed on the server")

    def in_parts(self) -> None:
        """Fetch the pieces over several connections."""
        waiting = [one for one in self.part.pieces if one.stop is not None and one.done < one.stop - one.start]
        lock = threading.Lock()

        def work() -> None:
            while not self.stop.is_set():
                with lock:
                    if not waiting:
                        return
                    piece = waiting.pop(0)
                self.fetch_piece(piece)

        bar = self.progress(self.request.name, self.part.size)
        saved = time.monotonic()
        workers = max(1, min(self.connections, len(waiting)))
        with ThreadPoolExecutor(workers) as pool:
            running = {pool.submit(work) for _ in range(workers)}
            try:
                while running:
                    finished, running = wait(running, timeout=0.2)
                    for one in finished:
                        one.result()
                    while self.notes:
                        bar.end()
                        self.say(self.notes.pop(0))
                    bar.show(self.part.done)
                    if time.monotonic() - saved > SAVE_SECONDS:
                        saved = time.monotonic()
                        self.part.save()
                for note in self.notes:
                    self.say(note)
            except BaseException:
                self.stop.set()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                bar.end()
                self.part.save()

    def fetch_piece(self, piece: _Piece) -> None:
        """Fetch the rest of a piece, over several connections one after the other if they break."""
        stop = piece.stop or 0
        tag = self.part.tag if self.tagged else None
        fixed = {"If-Range": tag} if tag and not tag.startswith("W/") else {}
        attempt = 0
        while piece.start + piece.done < stop and not self.stop.is_set():
            here = piece.start + piece.done
            try:
                answer = self.web.open(self.request.address, {"Range": f"bytes={here}-{stop - 1}", **fixed})
                try:
                    self.agrees(answer, here, stop)
                    with self.path.open("r+b", buffering=0) as file:
                        for _ in self.copied(answer, file, piece):
                            if self.stop.is_set():
                                return
                finally:
                    answer.close()
            except Interruption as error:
                attempt = 1 if piece.start + piece.done > here else attempt + 1
                if attempt >= TRIES:
                    raise self.gave_up(error) from error
                self.notes.append(f"{error}: trying again")
                self.wait(error.wait if error.wait is not None else min(self.pause * 2 ** (attempt - 1), LONGEST_PAUSE))

    def agrees(self, answer: Answer, here: int, stop: int) -> None:
        """Check that an answer is the part that was asked for, of the same version."""
        found = answer.content_range
        if answer.status != 206 or found is None:
            self.whole = self.part.tag == answer.tag and answer.status == 200
            raise _Changed("the server sends the file only as a whole" if self.whole else "the file has changed on the server")
        if found[2] != self.part.size or (self.tagged and self.part.tag and answer.tag and answer.tag != self.part.tag):
            raise _Changed("the file has changed on the server")
        if found[0] != here or found[1] >= stop:
            raise DownloadFailed(
                f"Asked {short(answer.address)} for the bytes {here}-{stop - 1}, got {found[0]}-{found[1]}. The server or a "
                f"proxy on the way is broken. {self.way_out()}"
            )

    def copied(self, answer: Answer, file: IO[bytes], piece: _Piece) -> Iterator[int]:
        """Write an answer's body to its place; yields after each block.

        Raises:
            Interruption: The body ended early.
            DownloadFailed: It is longer than the file can be.
        """
        stop = piece.stop
        file.seek(piece.start + piece.done)
        while block := answer.read(BLOCK):
            most = (LARGEST_UNKNOWN if stop is None else stop) - piece.start - piece.done
            if len(block) > most:
                raise DownloadFailed(
                    f"{short(answer.address)} sends more than the {size_text(piece.done + most)} that were expected. "
                    f"{self.way_out()}"
                )
            file.write(block)
            piece.done += len(block)
            yield piece.done
            if stop is not None and piece.start + piece.done == stop and answer.length is not None:
                return
        if stop is not None and piece.start + piece.done < stop:
            raise Interruption(f"the connection broke off at {size_text(piece.start + piece.done)}")

    def patiently(self, call: Callable[[], Answer]) -> Answer:
        """Call until it works, with growing pauses."""
        for attempt in range(TRIES):
            try:
                return call()
            except Interruption as error:
                if attempt == TRIES - 1:
                    raise self.gave_up(error) from error
                seconds = error.wait if error.wait is not None else min(self.pause * 2**attempt, LONGEST_PAUSE)
                self.say(f"{error}: trying again in {duration_text(seconds)}")
                self.wait(seconds)
        raise AssertionError

    def wait(self, seconds: float) -> None:
        """Wait, unless the run ends."""
        self.stop.wait(seconds)

    def gave_up(self, error: Interruption) -> DownloadFailed:
        """Return the error that ends a run."""
        done = self.part.done if self.parts else 0
        kept = f" {size_text(done)} are kept: run the same command again to go on there." if done else ""
        return DownloadFailed(
            f"{self.request.name}: {error}, {TRIES} times.{kept} Check the network and the proxy (https_proxy), or name a "
            "mirror in HF_ENDPOINT."
        )

    def way_out(self) -> str:
        """Say what to do about a server that does not serve the file."""
        return f"Try another mirror (HF_ENDPOINT), or get {self.request.name} from {self.request.page}."

    # The check

    def check(self) -> None:
        """Compare the whole file with its checksums, or else with what it should be."""
        bar = self.progress(f"checking {self.request.name}", self.path.stat().st_size)
        problem = mismatch(self.path, self.sha256, self.request.md5, bar.show)
        bar.end()
        if problem:
            self.part.remove()
            raise DownloadFailed(
                f"{self.request.name} from {short(self.request.address)}: {problem}. It is another version or was damaged on "
                f"the way, and has been removed. Run the same command again once. {self.way_out()}"
            )
        if not (self.sha256 or self.request.md5):
            if self.request.name.endswith(".safetensors") and not tensor_shapes(self.path):
                self.part.remove()
                raise DownloadFailed(
                    f"{self.request.name} from {short(self.request.address)} is not a safetensors file, and has been removed. "
                    f"Get it from {self.request.page}."
                )
            self.say("no checksum is known: only its length was checked")


HASHES: dict[str, Callable[[], Any]] = {"SHA-256": hashlib.sha256, "MD5": lambda: hashlib.md5(usedforsecurity=False)}


def mismatch(path: Path, sha256: str | None, md5: str | None, show: Callable[[int], object] = lambda done: None) -> str:
    """Compare a file with the checksums that are known.

    Args:
        path: The file. It is read only if a checksum is known.
        sha256: Its SHA-256, if known.
        md5: Its MD5, if known.
        show: Called with the number of bytes read.

    Returns:
        The expected checksum and the actual one in words; empty if they are the same.
    """
    known = {kind: value for kind, value in (("SHA-256", sha256), ("MD5", md5)) if value}
    if not known:
        return ""
    with path.open("rb") as file:
        got = digests(file, known, show)
    return next((f"expected {kind} {value}, got {got[kind]}" for kind, value in known.items() if got[kind] != value), "")


def digests(
    file: IO[bytes], kinds: Iterable[str], show: Callable[[int], object] = lambda done: None, most: int | None = None
) -> dict[str, str]:
    """Compute checksums.

    Args:
        file: What is read.
        kinds: Names in `HASHES`.
        show: Called with the number of bytes read.
        most: Bytes after which reading ends.

    Returns:
        Hexadecimal digests by kind.
    """
    made = {kind: HASHES[kind]() for kind in kinds}
    done = 0
    while block := file.read(1 << 22):
        for digest in made.values():
            digest.update(block)
        done += len(block)
        show(done)
        if most is not None and done > most:
            break
    return {kind: digest.hexdigest() for kind, digest in made.items()}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, so that two runs do not write one file."""
    lock = path.with_name(f"{path.name}.lock")
    with contextlib.ExitStack() as after:
        file = after.enter_context(lock.open("ab"))
        try:
            _lock(file)
        except OSError as error:
            raise DownloadFailed(
                f"Another run is fetching {path.name}. Wait for it, or end it, then run this again."
            ) from error
        after.pop_all()
        try:
            yield
        finally:
            file.close()
            lock.unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
