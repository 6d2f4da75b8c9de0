"""The benchmarks' peers do the same work: checked before any time is taken."""

import pytest
from absl import flags

pytest.importorskip("torch")

from benchmarks import loss_memory, peers, train_step  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def flag_values():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    saved = {name: flags.FLAGS[name].value for name in ("batch", "width", "loss", "block_size")}
    yield flags.FLAGS
    for name, value in saved.items():
        setattr(flags.FLAGS, name, value)


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_losses_agree_with_open_clip(loss, flag_values):
    flag_values.loss, flag_values.width, flag_values.block_size = loss, 8, 16
    loss_memory.check(40)


def test_steps_agree_with_open_clip(flag_values, monkeypatch, tmp_path):
    """The same losses for four updates, from the peer's weights."""
    sizes = dict(
        embed_dim=8,
        vision_cfg=dict(image_size=8, patch_size=4, width=16, layers=1, head_width=8),
        text_cfg=dict(context_length=5, vocab_size=30, width=16, heads=2, layers=1),
    )
    monkeypatch.setattr(train_step, "SIZES", sizes)
    flag_values.batch = 8
    given = train_step.batch(8)
    theirs = train_step.Theirs(tmp_path, given)
    ours = train_step.Ours(tmp_path, given | {})
    found = train_step.first_losses(ours, theirs)
    assert found[1][0] > found[1][-1], "an update that does nothing would agree too"


def test_stand_in_is_found_again():
    assert peers.open_clip() is peers.open_clip()
