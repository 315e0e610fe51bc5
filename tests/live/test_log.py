"""What the log of changes promises to its readers and writers: order, one entry an image, all or nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from clip_retrieval.errors import EncoderMismatch
from clip_retrieval.live.lineage import Held
from clip_retrieval.live.log import ChangeLog, Transaction
from clip_retrieval.live.log_rows import Encoder
from clip_retrieval.live.transaction import ANSWERS_KEPT, ANSWERS_KEPT_S
from tests.live.samples import DIM, FINGERPRINT, as_bytes, content, files_of, live_image, open_log, put


def test_a_new_log_makes_its_folder_and_is_empty(log: ChangeLog, log_path: Path) -> None:
    assert log_path.is_file()
    assert (log.sequence(), log.after(0), log.base()) == (0, [], None)


def test_changes_are_numbered_from_1_across_transactions_and_restarts(log: ChangeLog, log_path: Path) -> None:
    with log.transaction() as transaction:
        assert [transaction.put(live_image("a")), transaction.remove("b")] == [1, 2]
    with log.transaction() as transaction:
        assert transaction.put(live_image("c")) == 3
    with closing(open_log(log_path)) as again:
        assert again.sequence() == 3
        assert put(again, live_image("d")) == 4
    assert log.sequence() == 4


def test_an_entry_is_the_whole_state_after_the_change(log: ChangeLog, log_path: Path) -> None:
    images = [live_image("a", 0), live_image("b", 1), live_image("é ü/小.png", 2)]
    put(log, *images)
    with closing(open_log(log_path)) as again:
        assert [as_bytes(entry.image) for entry in again.after(0)] == [as_bytes(image) for image in images]


def test_only_the_latest_entry_of_an_image_is_kept_in_the_order_of_changes(log: ChangeLog) -> None:
    put(log, live_image("a", 1), live_image("b", 1), live_image("a", 2))
    with log.transaction() as transaction:
        transaction.remove("b")
    put(log, live_image("c", 1))
    expected = [(3, "a", as_bytes(live_image("a", 2))), (4, "b", None), (5, "c", as_bytes(live_image("c", 1)))]
    assert content(log.after(0)) == expected
    assert content(log.after(3)) == expected[1:]
    assert content(log.after(0, 2)) == expected[:2]
    assert log.after(5) == []


def test_what_is_removed_and_put_again_is_there(log: ChangeLog) -> None:
    with log.transaction() as transaction:
        transaction.remove("a")
        transaction.put(live_image("a", 7))
    assert content(log.after(0)) == [(2, "a", as_bytes(live_image("a", 7)))]


def test_a_transaction_reads_what_came_before_it_and_what_it_wrote(log: ChangeLog, log_path: Path) -> None:
    with closing(open_log(log_path)) as other:
        put(other, live_image("a"))
    with log.transaction() as transaction:
        transaction.put(live_image("b"))
        assert [entry.image_id for entry in transaction.following(Held(), 0)] == ["a", "b"]
        assert [entry.image_id for entry in log.after(0)] == ["a"], "others see nothing before the end"


def test_an_error_inside_a_transaction_undoes_all_of_it(log: ChangeLog) -> None:
    def fail() -> None:
        with log.transaction() as transaction:
            transaction.put(live_image("b"))
            transaction.remove("a")
            transaction.keep_answer("key", b"answer")
            raise RuntimeError("no")

    put(log, live_image("a"))
    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert [entry.image_id for entry in log.after(0)] == ["a"]
    assert put(log, live_image("c")) == 2, "its numbers are free again"
    with log.transaction() as transaction:
        assert transaction.answer_to("key") is None


def test_an_error_inside_a_part_undoes_that_part_alone(log: ChangeLog) -> None:
    def fail(transaction: Transaction) -> None:
        with transaction.savepoint():
            transaction.put(live_image("b"))
            transaction.compacted(1, "v1")
            raise RuntimeError("no")

    with log.transaction() as transaction:
        transaction.put(live_image("a"))
        with pytest.raises(RuntimeError, match="no"):
            fail(transaction)
        with transaction.savepoint():
            assert transaction.put(live_image("c")) == 2
    assert [entry.image_id for entry in log.after(0)] == ["a", "c"]
    assert log.base() is None


def test_vectors_of_another_dimension_are_not_logged(log: ChangeLog, log_path: Path) -> None:
    with pytest.raises(ValueError, match="not float32"), log.transaction() as transaction:
        transaction.put(live_image("a", dim=DIM + 1))
    assert log.sequence() == 0


def test_a_transaction_is_of_no_use_after_its_block(log: ChangeLog) -> None:
    with log.transaction() as committed:
        committed.put(live_image("a"))
    with pytest.raises(ValueError, match="not float32"), log.transaction() as undone:
        undone.put(live_image("b", dim=DIM + 1))
    for transaction in (committed, undone):
        with pytest.raises(RuntimeError, match="has ended"):
            transaction.put(live_image("c"))
    assert log.sequence() == 1


def test_a_transaction_that_writes_nothing_is_no_commit(log: ChangeLog, log_path: Path) -> None:
    """A condition that fails, or an answer that was given before, waits for no disk and wakes no other process."""

    def on_disk() -> dict[str, bytes]:
        return {name: data for name, data in files_of(log_path).items() if not name.endswith("-shm")}

    put(log, live_image("a"))
    assert log.has_changed()
    before = on_disk()
    with log.transaction() as transaction:
        transaction.following(Held(), 0)
        transaction.answer_to("key")
    assert on_disk() == before
    assert not log.has_changed()


def test_has_changed_tells_each_commit_of_others_once(log: ChangeLog, log_path: Path) -> None:
    assert not log.has_changed()
    with closing(open_log(log_path)) as other:
        assert not log.has_changed(), "opening is no change"
        put(other, live_image("a"))
        assert log.has_changed()
        assert not log.has_changed()
        log.after(0)
        assert not log.has_changed(), "reading is no change"
        with pytest.raises(ValueError, match="not float32"), other.transaction() as transaction:
            transaction.put(live_image("b", dim=DIM + 1))
        assert not log.has_changed(), "what was undone is no change"


class TestAnswers:
    """The answers to idempotency keys."""

    @staticmethod
    def answer(log: ChangeLog, key: str) -> bytes | None:
        with log.transaction() as transaction:
            return transaction.answer_to(key)

    def test_an_answer_is_kept_with_the_changes_of_its_transaction(self, log: ChangeLog, log_path: Path) -> None:
        with log.transaction() as transaction:
            assert transaction.answer_to("k") is None
            transaction.keep_answer("k", b'{"sequence": 1}')
        with closing(open_log(log_path)) as again:
            assert self.answer(again, "k") == b'{"sequence": 1}'
            assert self.answer(again, "K") is None

    def test_an_answer_is_forgotten_after_a_day(self, log_path: Path) -> None:
        now = [1_000_000.0]
        with closing(open_log(log_path, clock=lambda: now[0])) as log:
            with log.transaction() as transaction:
                transaction.keep_answer("k", b"old")
            now[0] += ANSWERS_KEPT_S - 1
            assert self.answer(log, "k") == b"old"
            now[0] += 1
            assert self.answer(log, "k") is None
            with log.transaction() as transaction:
                transaction.keep_answer("k", b"new")
            assert self.answer(log, "k") == b"new"

    def test_the_number_of_answers_is_bounded_and_the_newest_stay(self, log: ChangeLog) -> None:
        with log.transaction() as transaction:
            for number in range(ANSWERS_KEPT + 2):
                transaction.keep_answer(f"k{number}", b"answer")
        kept = [number for number in (0, 1, 2, ANSWERS_KEPT + 1) if self.answer(log, f"k{number}")]
        assert kept == [2, ANSWERS_KEPT + 1]


class TestCompaction:
    """Entries that an artifact holds are dropped."""

    def test_entries_up_to_a_number_are_dropped_and_the_count_goes_on(self, log: ChangeLog, log_path: Path) -> None:
        put(log, live_image("a"), live_image("b"), live_image("c"))
        with log.transaction() as transaction:
            transaction.compacted(2, "v2")
        assert log.base() == ("v2", 2)
        assert [entry.image_id for entry in log.after(0)] == ["c"]
        with log.transaction() as transaction:
            transaction.compacted(3, "v3")
        with closing(open_log(log_path)) as again:
            assert (again.base(), again.after(0), again.sequence()) == (("v3", 3), [], 3)
            assert put(again, live_image("d")) == 4

    @pytest.mark.parametrize("sequence", [0, 3])
    def test_a_number_outside_of_the_log_is_refused(self, log: ChangeLog, sequence: int) -> None:
        put(log, live_image("a"), live_image("b"))
        with log.transaction() as transaction:
            transaction.compacted(1, "v1")
        with pytest.raises(ValueError, match="is not between 1 and 2"), log.transaction() as transaction:
            transaction.compacted(sequence, "v2")
        assert log.base() == ("v1", 1)

    def test_no_byte_of_a_removed_image_is_left_in_any_file(self, log: ChangeLog, log_path: Path) -> None:
        """Its thumbnail is a hundred marks; other images come, change and go around it."""
        mark = live_image("secret", 1, thumbnail_bytes=3_000)
        assert mark.thumbnail is not None
        traces = [mark.thumbnail.small[:12], mark.vector.tobytes()[:12], b"secret.jpg"]
        for number in range(40):
            put(log, live_image(f"other{number % 9}", number, thumbnail_bytes=200 * number))
        put(log, mark)
        assert all(any(trace in data for data in files_of(log_path).values()) for trace in traces)
        for number in range(40):
            put(log, live_image(f"other{number % 7}", number, thumbnail_bytes=150 * number))
        with log.transaction() as transaction:
            removed = transaction.remove("secret")
        put(log, live_image("later"))
        with log.transaction() as transaction:
            transaction.compacted(removed, "v1")
        found = {name: [trace for trace in traces if trace in data] for name, data in files_of(log_path).items()}
        assert not any(found.values()), found
        assert [entry.image_id for entry in log.after(0)] == ["later"]

    def test_the_room_of_dropped_entries_is_given_back(self, log: ChangeLog, log_path: Path) -> None:
        put(log, *(live_image(f"i{number}", thumbnail_bytes=20_000) for number in range(50)))
        with log.transaction() as transaction:
            transaction.compacted(50, "v1")
        assert sum(map(len, files_of(log_path).values())) < 150_000

    def test_bytes_that_a_reader_holds_are_wiped_at_the_next_start(
        self, log_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        image = live_image("secret")
        with closing(open_log(log_path, wait_s=0.05)) as log, closing(sqlite3.connect(log_path)) as reader:
            put(log, image)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM state").fetchall()
            with log.transaction() as transaction:
                transaction.compacted(1, "v1")
            assert log.base() == ("v1", 1), "the compaction does not fail for that"
            assert "removed images may have left bytes" in caplog.text
            assert any(image.vector.tobytes() in data for data in files_of(log_path).values())
            reader.rollback()
            with closing(open_log(log_path)):
                assert not any(image.vector.tobytes() in data for data in files_of(log_path).values())


def test_another_encoder_is_refused(log: ChangeLog, log_path: Path) -> None:
    put(log, live_image("a"))
    for fingerprint, dim in (("0" * 64, DIM), (FINGERPRINT, DIM + 1)):
        with pytest.raises(
            EncoderMismatch, match=r"made with another encoder .* choose another folder .*bento-clip sync"
        ):
            ChangeLog.open(log_path, fingerprint=fingerprint, dim=dim)
    assert log.sequence() == 1


def test_a_log_without_a_change_is_any_encoder_s(log: ChangeLog, log_path: Path) -> None:
    with closing(ChangeLog.open(log_path, fingerprint="0" * 64, dim=DIM + 1)) as other:
        assert (log.sequence(), log.after(0), log.following(Held(), 0)) == (0, [], [])
        with pytest.raises(EncoderMismatch), log.transaction() as transaction:
            transaction.put(live_image("a"))
        assert other.sequence() == 0
        log.claim(Encoder(FINGERPRINT, DIM))
        put(log, live_image("a"))
        with pytest.raises(EncoderMismatch, match="made with another encoder"):
            other.after(0)
        with pytest.raises(EncoderMismatch):
            other.claim(Encoder("0" * 64, DIM + 1))
    log.claim(Encoder(FINGERPRINT, DIM))


def test_a_log_from_which_all_changes_were_compacted_stays_its_encoder_s(log: ChangeLog) -> None:
    put(log, live_image("a"))
    with log.transaction() as transaction:
        transaction.compacted(1, "v1")
    with pytest.raises(EncoderMismatch):
        log.claim(Encoder("0" * 64, DIM))
