"""Encoder weights in files of every published layout: what is found, loaded, ignored and refused."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import earmark
from earmark.cli.config import compose
from earmark.encoders import Encoder, PannsCnn, R2Plus1D, SpecCNN9, new_encoder
from earmark.encoders.weights import WeightsError, load_encoder, load_encoder_weights, save_encoder
from earmark.methods.heads import projection_head
from earmark.methods.replai import AudioVisualModel
from earmark.training.checkpoint import save_checkpoint
from earmark.training.step import ema_of

State = dict[str, Tensor]


def small_model(width: int = 4, depth: int = 18) -> AudioVisualModel:
    model = AudioVisualModel(R2Plus1D(depth, width=width), SpecCNN9(width=width), hidden_dim=8, out_dim=4)
    for module in model.modules():  # running statistics that differ from a fresh encoder's
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.running_mean is not None
            module.running_mean.normal_()
    return model


def below(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: value for name, value in state.items()}


def same(encoder: Encoder, state: Mapping[str, Tensor]) -> bool:
    own = encoder.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], value) for name, value in state.items())


def an_optimizer(model: nn.Module | None = None) -> dict[str, Any]:
    parameters = [nn.Parameter(torch.ones(3))] if model is None else list(model.parameters())
    torch.stack([parameter.sum() for parameter in parameters]).sum().backward()
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    optimizer.step()
    return optimizer.state_dict()


def write_avid(path: Path, model: AudioVisualModel) -> None:
    """As AVID and AVID-CMA write it: both models and their projections, the criterion with its memory, old format."""
    state = below("module.video_model.", model.backbone["video"].state_dict())
    state |= below("module.video_proj.projection.", projection_head(32, 8, 4).state_dict())
    state |= below("module.audio_model.", model.backbone["audio"].state_dict())
    state |= below("module.audio_proj.projection.", projection_head(32, 8, 4).state_dict())
    criterion = {"nce_average.view1_mem": torch.zeros(5, 4), "nce_average.multinomial.alias": torch.zeros(5)}
    checkpoint = {"epoch": 200, "model": state, "optimizer": an_optimizer(), "train_criterion": criterion}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)


def write_replai(path: Path, model: AudioVisualModel, prefix: str = "module.") -> None:
    """As the original code of RepLAI writes it, statistics of numpy beside the weights."""
    checkpoint = {
        "model": below(prefix, model.state_dict()),
        "optimizer": an_optimizer(),
        "sampler": {"epoch": 10, "batches_seen": 3, "order": np.arange(7)},
        "epoch": 11,
        "Loss": np.float64(2.5),
    }
    torch.save(checkpoint, path)


def write_replai_alone(path: Path, model: AudioVisualModel) -> None:
    write_replai(path, model, prefix="")


def write_compiled(path: Path, model: AudioVisualModel) -> None:
    """As torch.compile and DistributedDataParallel together name the weights."""
    write_replai(path, model, prefix="_orig_mod.module.")


def write_earmark(path: Path, model: AudioVisualModel) -> None:
    """As a run of Earmark writes it."""
    config = compose("default_ssrl", ["backbone.video.args.width=4", "backbone.audio.args.width=4"])
    save_checkpoint(path, {"config": config, "model": model.state_dict(), "optimizer": an_optimizer(model)})


def write_bare(path: Path, model: AudioVisualModel) -> None:
    """As someone's torch.save(model.state_dict())."""
    torch.save(model.state_dict(), path)


LAYOUTS = {
    "AVID": (write_avid, "checkpoint of AVID or AVID-CMA"),
    "RepLAI on several GPUs": (write_replai, "checkpoint of RepLAI"),
    "RepLAI on one": (write_replai_alone, "checkpoint of RepLAI"),
    "compiled": (write_compiled, "checkpoint of RepLAI"),
    "Earmark": (write_earmark, "checkpoint of Earmark"),
    "bare": (write_bare, "checkpoint of RepLAI"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_both_encoders_of_every_published_layout_are_loaded(tmp_path: Path, layout: str, kind: Any) -> None:
    write, words = LAYOUTS[layout]
    model, path = small_model(), tmp_path / "checkpoint.pth"
    write(path, model)
    trained = model.backbone[kind].state_dict()
    encoder = load_encoder(path, kind=kind)
    assert same(encoder, trained)
    assert (encoder.name, encoder.options["width"]) == (
        "avid_r2plus1d_18" if kind == "video" else "avid_spec_cnn_9",
        4,
    )
    fresh = new_encoder(encoder.name, width=4)
    loaded = load_encoder_weights(fresh, path, kind=kind)
    assert same(fresh, trained)
    assert (loaded.layout, loaded.num_tensors, loaded.path) == (words, len(trained), path)
    assert encoder.origin == str(loaded) == fresh.origin


def test_what_was_found_loaded_and_ignored_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "avid.pth.tar"
    write_avid(path, small_model())
    with caplog.at_level(logging.INFO, logger="earmark"):
        encoder = load_encoder(path)
    assert encoder.origin == caplog.messages[0]
    assert encoder.origin == (
        f"{path} (checkpoint of AVID or AVID-CMA): loaded all {len(encoder.state_dict())} tensors of the video encoder"
        "; ignored: audio encoder (54 tensors), video_proj (4 tensors), audio_proj (4 tensors), epoch, optimizer, "
        "train_criterion"
    )
    write_replai(path, small_model())
    assert load_encoder(path, kind="audio").origin.endswith(
        f"ignored: video encoder ({len(encoder.state_dict())} tensors), mlp (20 tensors), "
        "optimizer, sampler, epoch, Loss"
    )


@pytest.mark.parametrize("prefix", ["module.backbone.", "backbone."])
def test_the_encoder_of_the_originals_linear_probe_is_read(tmp_path: Path, prefix: str) -> None:
    trained = small_model().backbone["video"].state_dict()
    heads = below("module.fc.verb.", nn.Linear(32, 97).state_dict())
    torch.save({"model": below(prefix, trained) | heads, "epoch": 30}, tmp_path / "checkpoint.pth")
    assert same(encoder := load_encoder(tmp_path / "checkpoint.pth"), trained)
    assert "linear probe of the RepLAI code" in encoder.origin
    with pytest.raises(WeightsError, match=r"holds no audio encoder \(it is a linear probe"):
        load_encoder(tmp_path / "checkpoint.pth", kind="audio")


def write_with_average(path: Path, model: AudioVisualModel) -> tuple[State, State]:
    """Write a run's checkpoint with an average of the weights; return the video encoder of the average and of the end.

    The average ends before the run does, so that its batch norm statistics differ from those of the last step, too.
    """
    average = ema_of(model, decay=0.5)
    average.update_parameters(model)
    averaged = {name: value.clone() for name, value in model.backbone["video"].state_dict().items()}
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.add_(torch.rand_like(tensor))
    save_checkpoint(path, {"model": model.state_dict(), "ema": average.state_dict(), "position": {"step": 1}})
    return averaged, model.backbone["video"].state_dict()


def test_the_average_of_the_weights_is_read_where_there_is_one_and_the_last_step_where_it_is_asked_for(
    tmp_path: Path,
) -> None:
    path = tmp_path / "best.pt"
    averaged, last = write_with_average(path, small_model())
    encoder = load_encoder(path)
    assert same(encoder, averaged)  # running statistics included
    assert "(checkpoint of Earmark, average of the weights): loaded all" in encoder.origin
    assert "ignored: " in encoder.origin
    assert "model" in encoder.origin.partition("ignored: ")[2]
    assert same(load_encoder(path, weights="ema"), averaged)
    assert same(of_last := load_encoder(path, weights="model"), last)
    assert "(checkpoint of Earmark, weights of the last step): loaded all" in of_last.origin
    assert "ema" in of_last.origin.partition("ignored: ")[2]
    fresh = R2Plus1D(18, width=4)
    assert load_encoder_weights(fresh, path, kind="video").weights == "ema"
    assert same(fresh, averaged)
    assert load_encoder_weights(fresh, path, kind="video", weights="model").weights == "model"
    assert same(fresh, last)
    save_encoder(encoder, tmp_path / "mine.safetensors")
    assert "average of the weights" in json.loads((tmp_path / "mine.json").read_text())["origin"]
    assert same(load_encoder(tmp_path / "mine.safetensors"), averaged)


def test_weights_that_a_file_does_not_hold_are_refused(tmp_path: Path) -> None:
    model = small_model()
    own, avid, exported = tmp_path / "run.pt", tmp_path / "avid.pth", tmp_path / "mine.safetensors"
    save_checkpoint(own, {"model": model.state_dict(), "ema": None})
    write_avid(avid, model)
    save_encoder(new_encoder("avid_spec_cnn_9", width=4), exported)
    with pytest.raises(WeightsError, match=r"run\.pt: holds no average of the weights \(the run kept none"):
        load_encoder(own, weights="ema")
    assert "average" not in load_encoder(own).origin
    assert "ema" not in load_encoder(own).origin
    assert same(load_encoder(own, weights="model"), model.backbone["video"].state_dict())
    with pytest.raises(WeightsError, match=r"avid\.pth: holds no average of the weights"):
        load_encoder(avid, weights="ema")
    with pytest.raises(WeightsError, match=r"mine\.safetensors: holds one set of weights"):
        load_encoder(exported, weights="model")
    with pytest.raises(ValueError, match="ema or model, got 'best'"):
        load_encoder(own, weights="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="avid_spec_cnn_9: weights=ema chooses among those of a checkpoint"):
        load_encoder("avid_spec_cnn_9", pretrained=False, weights="ema")


def test_a_loaded_encoder_is_in_evaluation_mode(tmp_path: Path) -> None:
    write_bare(tmp_path / "bare.pth", small_model())
    save_encoder(new_encoder("avid_r2plus1d_10", width=4), tmp_path / "mine.safetensors")
    for source in ("bare.pth", "mine.safetensors"):
        encoder = load_encoder(tmp_path / source)
        assert not any(module.training for module in encoder.modules())
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        with torch.no_grad():
            encoder(torch.randn(2, 3, 4, 32, 32))
        assert same(encoder, before)  # in training mode the running statistics would have moved
    assert not load_encoder("avid_spec_cnn_9", width=4, pretrained=False).training


def test_panns_weights_are_read_without_their_front_end_and_classifier(tmp_path: Path) -> None:
    trained = PannsCnn(6).state_dict()
    state = trained | {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(5, 1, 8),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(5, 1, 8),
        "logmel_extractor.melW": torch.zeros(5, 64),
        "fc_audioset.weight": torch.zeros(527, 512),
        "fc_audioset.bias": torch.zeros(527),
    }
    path = tmp_path / "Cnn6_mAP=0.343.pth"
    torch.save({"iteration": 5, "model": state, "sampler": {"indexes": np.arange(4), "pointer": 2}}, path)
    encoder = load_encoder(path)
    assert (encoder.name, encoder.options) == ("cnn6", {"num_mels": 64})
    assert same(encoder, trained)
    assert "ignored: spectrogram_extractor (2 tensors), logmel_extractor (1 tensors), fc_aud" in encoder.origin
    with pytest.raises(WeightsError, match=r"bn0\.weight is \(64,\) in the file and \(80,\) here"):
        load_encoder_weights(PannsCnn(6, num_mels=80), path, kind="audio")
    with pytest.raises(WeightsError, match=r"does not fit .*\(it looks like cnn6\(num_mels=64\)\)"):
        load_encoder_weights(PannsCnn(10), path, kind="audio")


def test_an_exported_encoder_comes_back_with_its_name_options_and_weights(tmp_path: Path) -> None:
    encoder = new_encoder("avid_r2plus1d_10", width=4).to(memory_format=torch.channels_last_3d)
    path = tmp_path / "mine.safetensors"
    save_encoder(encoder, path)
    description = json.loads(path.with_suffix(".json").read_text())
    assert description["name"] == "avid_r2plus1d_10"
    assert (description["kind"], description["options"], description["output_dim"]) == ("video", {"width": 4}, 32)
    loaded = earmark.load_encoder(path)
    assert same(loaded, encoder.state_dict())
    assert (loaded.name, loaded.options, loaded.output_dim) == (encoder.name, encoder.options, 32)
    assert "encoder exported by Earmark" in loaded.origin
    path.with_suffix(".json").unlink()  # the names alone tell enough for an encoder of the paper
    assert same(load_encoder(path), encoder.state_dict())
    with pytest.raises(ValueError, match=r"called NAME\.safetensors"):
        save_encoder(encoder, tmp_path / "mine.pt")
    with pytest.raises(ValueError, match="built by name"):
        save_encoder(SpecCNN9(width=4), path)


def test_a_name_loads_the_published_weights_or_random_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    write_avid(tmp_path / "AVID_Audioset_Cross-N1024_checkpoint.pth.tar", model)
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path))
    for name, kind in (("avid_r2plus1d_18", "video"), ("avid_spec_cnn_9", "audio")):
        assert same(load_encoder(name, width=4), model.backbone[kind].state_dict())
        fresh = load_encoder(name, width=4, pretrained=False)
        assert not same(fresh, model.backbone[kind].state_dict())
        assert fresh.origin == ""
    monkeypatch.delenv("EARMARK_WEIGHTS")
    with pytest.raises(FileNotFoundError, match=r"AVID_Audioset_Cross-N1024_checkpoint\.pth\.tar .*AVID-CMA"):
        load_encoder("avid_r2plus1d_18")
    with pytest.raises(ValueError, match="avid_r2plus1d_18 is not an encoder of audio"):
        load_encoder("avid_r2plus1d_18", kind="audio")


@pytest.mark.parametrize("name", ["resnet22", "mobilev1", "res1dnet31", "wavegram14", "no_such.pth"])
def test_names_that_are_neither_files_nor_encoders_give_a_list_of_encoders(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{name}: neither a file nor an encoder.*avid_r2plus1d_18.*cnn14"):
        load_encoder(name)
    with pytest.raises(ValueError, match=rf"no encoder is called '{name}'; there are avid_r2plus1d_10.*hf_audio"):
        new_encoder(name)


def test_options_that_an_encoder_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder cnn6: .*'width'"):
        new_encoder("cnn6", width=4)
    write_bare(tmp_path / "model.pth", small_model())
    with pytest.raises(ValueError, match="options are for encoders that are built by name"):
        load_encoder(tmp_path / "model.pth", width=4)


def encoder_weights(width: int = 4) -> State:
    return SpecCNN9(width=width).state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("block2.conv1.weight"), r"1 missing, such as block2\.conv1\.weight"),
        (lambda state: state.update(more=torch.zeros(1)), "1 unknown, such as more"),
        (
            lambda state: state.update({"conv1.0.weight": torch.zeros(4, 2, 7, 7)}),
            r"1 of another shape, such as conv1\.0\.weight is \(4, 2, 7, 7\) in the file and \(4, 1, 7, 7\) here",
        ),
        (lambda state: state["block1.bn1.weight"].fill_(torch.nan), r"1 not finite, such as block1\.bn1\.weight"),
    ],
)
@pytest.mark.parametrize("prefix", ["backbone.audio.", ""])
def test_weights_that_do_not_fit_exactly_are_refused_and_none_are_loaded(
    tmp_path: Path, change: Any, message: str, prefix: str
) -> None:
    state = encoder_weights()
    change(state)
    torch.save({"model": below(prefix, state)}, tmp_path / "weights.pth")
    encoder = SpecCNN9(width=4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"weights\.pth: its audio encoder does not fit this one: .*{message}"):
        load_encoder_weights(encoder, tmp_path / "weights.pth", kind="audio")
    assert same(encoder, before)
    with pytest.raises(WeightsError, match=message):
        load_encoder(tmp_path / "weights.pth")


def test_counters_of_batch_norm_may_be_missing_as_in_files_before_torch_0_4(tmp_path: Path) -> None:
    state = {name: value for name, value in encoder_weights().items() if not name.endswith("num_batches_tracked")}
    torch.save(below("audio_model.", state), tmp_path / "weights.pth")
    loaded = load_encoder(tmp_path / "weights.pth").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_arrays_under_the_names_of_older_numpy_are_read_past(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    state = below("module.backbone.audio.", encoder_weights())
    statistics = {"sampler": np.arange(5), "Loss": np.float32(1.5), "seen": np.array([True])}
    torch.save({"model": state, **statistics}, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    path.write_bytes(old)
    assert "ignored: sampler, Loss, seen" in load_encoder(path).origin


class Malicious:
    def __reduce__(self) -> Any:
        return os.mkdir, ("malicious",)


@pytest.mark.parametrize("content", [Malicious(), nn.Linear(2, 2), {"model": {}, "epoch": Malicious()}])
def test_files_that_could_run_code_are_refused_and_do_not_run_it(
    tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth: holds more than tensors and plain data"):
        load_encoder("weights.pth")
    assert not Path("malicious").exists()


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    objects = np.array([Malicious()], dtype=object)
    torch.save({"model": encoder_weights(), "sampler": objects}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="holds more than tensors and plain data"):
        load_encoder(tmp_path / "weights.pth")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = encoder_weights()
    torch.save(below("audio_model.", state), path)
    content = path.read_bytes()
    weights = state["block4.conv2.weight"].numpy().tobytes()
    position = content.index(weights) + len(weights) // 2
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    with pytest.raises(WeightsError, match=r"weights\.pth: damaged \(the checksum of \S+ is wrong"):
        load_encoder(path)
    path.write_bytes(content[:-100])
    with pytest.raises(WeightsError, match=r"weights\.pth: damaged"):
        load_encoder(path)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match=r"weights\.pth: damaged or not a file of torch"):
        load_encoder(path)
    function = torch._utils._rebuild_tensor_v2  # torch.load lets those pass that it calls itself
    for content in ([torch.zeros(2)], {"model": [torch.zeros(2)]}, {"model": {}}, {"epoch": 3}, 5, None, "a", function):
        torch.save(content, path)
        with pytest.raises(WeightsError, match="holds no weights by name"):
            load_encoder(path)
    torch.save({"some.weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"its video encoder is not one that Earmark knows .*some\.weight"):
        load_encoder(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_encoder_weights(SpecCNN9(width=4), tmp_path / "none.pth", kind="audio")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", r"mine\.json: does not say which encoder mine\.safetensors holds"),
        ("[]", "does not say which encoder"),
        ('{"format_version": 1, "kind": "smell", "name": "cnn6", "options": {}}', "its kind is 'smell'"),
        ('{"format_version": 2, "kind": "audio", "name": "cnn6", "options": {}}', "of format 2; this Earmark reads 1"),
        ('{"format_version": 1, "kind": "audio", "name": "os.system", "options": {}}', "one that Earmark knows"),
        ('{"format_version": 1, "kind": "video", "name": "avid_spec_cnn_9", "options": {}}', "one that Earmark knows"),
        ('{"format_version": 1, "kind": "audio", "name": "cnn6", "options": {"depth": 99}}', "encoder cnn6: "),
        (
            '{"format_version": 1, "kind": "audio", "name": "cnn6", "options": {"num_mels": "x"}}',
            r"mine\.safetensors: ",
        ),
        ('{"format_version": 1, "kind": "audio", "name": "cnn6", "options": {}}', "does not fit this one"),
    ],
)
def test_exports_whose_description_is_wrong_are_refused(tmp_path: Path, description: str, message: str) -> None:
    save_file(encoder_weights(), tmp_path / "mine.safetensors")
    (tmp_path / "mine.json").write_text(description)
    with pytest.raises(WeightsError, match=message):
        load_encoder(tmp_path / "mine.safetensors")
    (tmp_path / "mine.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_encoder(tmp_path / "mine.safetensors")


def change_all(**changes: Any) -> State:
    weights = encoder_weights()
    return {name: value.to(**changes) if value.is_floating_point() else value for name, value in weights.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read_as_what_they_stand_for(tmp_path: Path, dtype: torch.dtype) -> None:
    state = change_all(dtype=dtype)
    torch.save(below("backbone.audio.", state), tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        loaded = load_encoder(tmp_path / name).state_dict()
        assert loaded["conv1.0.weight"].dtype == torch.float32
        assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.0.weight": lambda x: x.to(torch.float8_e4m3fn)}, r"of another type, such as conv1\.0\.weight is .*8"),
        ({"conv1.0.weight": lambda x: x.to(torch.complex64)}, r"conv1\.0\.weight is torch\.complex64 in the file"),
        ({"conv1.0.weight": lambda x: x.to(torch.int64)}, r"conv1\.0\.weight is torch\.int64 in the file"),
        ({"conv1.0.weight": lambda x: x.double() * 1e300}, r"1 not finite, such as conv1\.0\.weight"),
        ({"conv1.0.weight": lambda x: x.sum()}, r"conv1\.0\.weight is \(\) in the file"),
        ({"conv1.1.running_var": lambda x: -x}, r"1 negative, such as conv1\.1\.running_var"),
        ({"conv1.1.running_mean": lambda x: x / 0}, r"1 not finite, such as conv1\.1\.running_mean"),
        ({"conv1.1.num_batches_tracked": lambda x: x - 5}, "1 negative, such as .*num_batches_tracked"),
        ({"conv1.1.num_batches_tracked": lambda x: x.float()}, "num_batches_tracked is torch.float32 in the file"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_that_are_no_numbers_of_an_encoder_are_named(
    tmp_path: Path, change: dict[str, Any], message: str, suffix: str
) -> None:
    state = encoder_weights()
    for name, function in change.items():
        state[name] = function(state[name])
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(state, path)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=rf"weights\.{suffix}: .*{message}"):
        load_encoder(path)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (b'{"format_version": ' + b"[" * 10**4 + b"]" * 10**4 + b"}", "nested too deeply"),
        (b"[" * 10**6, "nested too deeply"),
        (b'{"format_version": "' + b"x" * 2**21 + b'"}', "larger than 1,048,576 bytes"),
        (b'{"format_version": "\xff"}', "not UTF-8, at byte 20"),
        (b'{"format_version": NaN}', "NaN is not a number of JSON"),
        (b'{"format_version": ' + b"9" * 10**5 + b"}", "does not say which encoder"),
    ],
)
def test_a_description_that_is_made_to_do_harm_is_named(tmp_path: Path, description: bytes, message: str) -> None:
    save_file(encoder_weights(), tmp_path / "mine.safetensors")
    (tmp_path / "mine.json").write_bytes(description)
    with pytest.raises(WeightsError, match=rf"mine\.json: .*{message}"):
        load_encoder(tmp_path / "mine.safetensors")


@pytest.mark.parametrize("width", [10**4, 10**6, 10**30, -4, "4", [4], None, 4.5, True])
def test_a_width_that_the_weights_are_not_of_is_named_before_it_is_built(tmp_path: Path, width: Any) -> None:
    save_file(encoder_weights(), tmp_path / "mine.safetensors")
    options = {"format_version": 1, "kind": "audio", "name": "avid_spec_cnn_9", "options": {"width": width}}
    (tmp_path / "mine.json").write_text(json.dumps(options))
    with pytest.raises(WeightsError, match=r"mine\.safetensors: "):
        load_encoder(tmp_path / "mine.safetensors")
