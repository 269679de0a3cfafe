"""The header's strings: what a caller adds never speaks for the tensors."""

import torch

from lily_diffusion import LilyConfig, attach, detach, load_lily_weights, read_lily_header, save_lily_weights

from .conftest import awaken, run


def test_another_files_header_as_metadata_does_not_speak_for_these_tensors(sd15, tmp_path):
    adapter = awaken(attach(sd15, LilyConfig(r=4)), seed=1)
    old = read_lily_header(save_lily_weights(sd15, tmp_path / "old")).metadata
    awaken(adapter, seed=2)
    path = save_lily_weights(sd15, tmp_path / "new", metadata={**old, "note": "kept"})
    output = run(sd15)
    detach(sd15)
    load_lily_weights(sd15, path)
    assert torch.equal(run(sd15), output) and read_lily_header(path).metadata["note"] == "kept"
