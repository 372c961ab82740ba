from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from curator.core.errors import DamageError, FormatError
from curator.store import fsops, sealed
from pretrain.loop.checkpoint import newest_valid, save_checkpoint


def trained(steps: int, *, layout: torch.memory_format = torch.contiguous_format):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    net.to(memory_format=layout)
    optimizer = torch.optim.AdamW(net.parameters(), 0.1, fused=True)
    for step in range(steps):
        torch.manual_seed(step)
        net(torch.randn(2, 3, 5, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return net, optimizer


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_going_on_from_a_checkpoint_is_never_having_stopped(
    tmp_path: Path, layout: torch.memory_format
) -> None:
    """Also with channels last, where moments in another layout would be silently mixed up."""
    net, optimizer = trained(3, layout=layout)
    save_checkpoint(tmp_path, 3, net, optimizer, {"flops": 7})
    found = newest_valid(tmp_path)
    assert found is not None
    assert (found.step, found.facts) == (3, {"flops": 7})
    again, its_optimizer = trained(1, layout=layout)
    found.restore(again, its_optimizer)
    for one, one_optimizer in ((net, optimizer), (again, its_optimizer)):
        torch.manual_seed(9)
        one(torch.randn(2, 3, 5, 5)).square().sum().backward()
        one_optimizer.step()
    for key, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_two_are_kept_and_leftovers_go(tmp_path: Path) -> None:
    net, optimizer = trained(1)
    (tmp_path / f"{fsops.TEMP_PREFIX}1-dead").write_bytes(b"half")
    (tmp_path / "00000002.safetensors").write_bytes(b"its manifest was never written")
    for step in (1, 3, 4):
        save_checkpoint(tmp_path, step, net, optimizer, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00000003.json", "00000003.safetensors", "00000004.json", "00000004.safetensors",
    ]  # fmt: skip


def test_a_damaged_newest_one_is_passed_over_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, optimizer = trained(1)
    for step in (3, 4):
        save_checkpoint(tmp_path, step, net, optimizer, {})
    path = tmp_path / "00000004.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = newest_valid(tmp_path)
    assert found is not None
    assert found.step == 3
    assert "checkpoint of step 4 fails its checksum" in capsys.readouterr().err
    path.unlink()
    found = newest_valid(tmp_path)
    assert found is not None
    assert found.step == 3
    assert "cannot be read" in capsys.readouterr().err


def test_without_a_whole_one_nothing_starts_over(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "none") is None
    net, optimizer = trained(1)
    save_checkpoint(tmp_path, 3, net, optimizer, {})
    (tmp_path / "00000003.json").write_bytes(b"{")
    with pytest.raises(DamageError, match="none of the 1 checkpoints is intact"):
        newest_valid(tmp_path)


def test_without_its_manifests_nothing_starts_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were taken for nothing, and the training started at step 0 without a word."""
    net, optimizer = trained(1)
    for step in (3, 4):
        save_checkpoint(tmp_path, step, net, optimizer, {})
    (tmp_path / "00000004.json").unlink()
    found = newest_valid(tmp_path)
    assert found is not None
    assert found.step == 3
    assert "checkpoint of step 4 cannot be read (the file is missing" in capsys.readouterr().err
    (tmp_path / "00000003.json").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DamageError, match="none of the 2 checkpoints is intact") as refused:
        newest_valid(tmp_path)
    assert "start over at step 0 with another --out" in str(refused.value.hint)
    assert sorted(tmp_path.iterdir()) == before


def test_numbers_whose_manifest_a_crash_kept_away_are_no_checkpoint(tmp_path: Path) -> None:
    net, optimizer = trained(1)
    save_checkpoint(tmp_path, 3, net, optimizer, {})
    (tmp_path / "00000003.safetensors").rename(tmp_path / "00000003.unfinished")
    found = newest_valid(tmp_path)
    assert found is not None, "the crash came between the manifest and the name"
    (tmp_path / "00000003.json").unlink()
    assert newest_valid(tmp_path) is None, "the crash came before the manifest"


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    net, optimizer = trained(1)
    save_checkpoint(tmp_path, 3, net, optimizer, {"flops": 7})
    path = tmp_path / "00000003.json"
    data = path.read_bytes()
    for place in range(0, len(data), 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DamageError):
            newest_valid(tmp_path)


def test_one_of_a_newer_tool_is_refused(tmp_path: Path) -> None:
    net, optimizer = trained(1)
    save_checkpoint(tmp_path, 3, net, optimizer, {})
    path = tmp_path / "00000003.json"
    path.write_text(json.dumps(sealed.read(path) | {"format": 2}))
    with pytest.raises(FormatError, match="checkpoint format 2"):
        newest_valid(tmp_path)


def test_a_crash_at_any_step_of_writing_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    net, optimizer = trained(1)

    class Crash(Exception):
        pass

    for at in range(1, 40):
        folder = tmp_path / str(at)
        save_checkpoint(folder, 1, net, optimizer, {})
        save_checkpoint(folder, 2, net, optimizer, {})
        count = 0

        def crash(_operation: str, _path: Path, at: int = at) -> None:
            nonlocal count
            count += 1
            if count == at:
                raise Crash

        fsops.set_step_hook(crash)
        try:
            save_checkpoint(folder, 3, net, optimizer, {})
        except Crash:
            done = False
        else:
            done = True
        finally:
            fsops.set_step_hook(None)
        found = newest_valid(folder)
        assert found is not None
        assert found.step in (2, 3)
        if done:
            assert at > 8
            return
    raise AssertionError("more steps than expected")
