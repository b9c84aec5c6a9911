"""From a Hugging Face folder to a peer's own format: `convert.py (gguf|openvino|ctranslate2) FOLDER TARGET PRECISION`.

Runs in the environment "convert", which has torch and every peer's own converter.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def gguf(folder: Path, target: Path, precision: str) -> None:
    """llama.cpp's format: one file, bfloat16 or Q8_0 matrices, float32 vectors; no vocabulary, prompts are ids."""
    import gguf as library
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    kind = library.GGMLQuantizationType.BF16 if precision == "bf16" else library.GGMLQuantizationType.Q8_0
    writer = library.GGUFWriter(target, config["model_type"])
    _gguf_header(writer, config, library)
    architecture = library.MODEL_ARCH[config["model_type"].upper()]
    names = library.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        values = _gguf_order(name, tensor.float(), config).numpy()
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if values.ndim == 1:
            writer.add_tensor(new, values)
        else:
            writer.add_tensor(new, library.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_header(writer: Any, config: dict[str, Any], library: Any) -> None:
    heads = config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _gguf_order(name: str, tensor: Any, config: dict[str, Any]) -> Any:
    """llama.cpp rotates neighbouring pairs in its Llama, halves in the others: rows of queries and keys move."""
    part = name.split(".")[-2]
    if config["model_type"] != "llama" or part not in {"q_proj", "k_proj"}:
        return tensor
    heads = config["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
    return tensor.view(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def openvino(folder: Path, target: Path, precision: str) -> None:
    """OpenVINO's graph with its tokenizer, through optimum-intel; int8 is its symmetric weight compression."""
    from openvino import save_model
    from openvino_tokenizers import convert_tokenizer
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
    from transformers import AutoTokenizer

    options = {"quantization_config": OVWeightQuantizationConfig(bits=8, sym=True)} if precision == "int8" else {}
    model = OVModelForCausalLM.from_pretrained(folder, export=True, compile=False, load_in_8bit=False, **options)
    model.save_pretrained(target)
    encoder, decoder = convert_tokenizer(AutoTokenizer.from_pretrained(folder), with_detokenizer=True)
    save_model(encoder, target / "openvino_tokenizer.xml")
    save_model(decoder, target / "openvino_detokenizer.xml")


def ctranslate2(folder: Path, target: Path, precision: str) -> None:
    """CTranslate2's binary, by its converter for transformers."""
    from ctranslate2.converters import TransformersConverter

    converter = TransformersConverter(str(folder), low_cpu_mem_usage=True)
    converter.convert(str(target), quantization=precision, force=True)


CONVERTERS: dict[str, Callable[[Path, Path, str], None]] = {
    "gguf": gguf,
    "openvino": openvino,
    "ctranslate2": ctranslate2,
}


def main() -> None:
    """Write beside the target and rename, so that a target is complete or absent."""
    kind, folder, target, precision = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    part = target.with_name(target.name + ".part")
    if part.is_dir():
        shutil.rmtree(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    CONVERTERS[kind](folder, part, precision)
    part.rename(target)


if __name__ == "__main__":
    main()
