"""
The table of algorithms, read by validation, trainer and deployment alike; no torch here, the API reads it too.

A row says which class of PEFT's configures the algorithm, which of a job's fields it takes and what PEFT calls them,
what is fixed, which options of its own it has, how the base model may be held, and whether it can be served here.
"""

from collections.abc import Mapping

from peft_studio.algorithms import Algorithm, Method, Option, Quantization, Targets


def _takes(names: str) -> dict[str, str]:
    """Read "rank=r bias": the job's rank is PEFT's r, bias is bias."""
    pairs = (name.partition("=") for name in names.split())
    return {ours: theirs or ours for ours, _, theirs in pairs}


_TORCHAO = (Quantization.FP8, Quantization.INT8_WEIGHT_ONLY)
_QUANTIZED = (Quantization.INT4, Quantization.INT8, *_TORCHAO)
_ALL = tuple(Quantization)
_NOT_INT4 = (Quantization.NONE, Quantization.INT8)
_FLOATS = (Quantization.NONE,)

_MODULES = "target_modules modules_to_save"
_PLACED = f"{_MODULES} layers_to_transform"
_PATTERNS = "rank_pattern alpha_pattern"
_LORA = _takes(
    f"{_PLACED} {_PATTERNS} rank=r alpha=lora_alpha dropout=lora_dropout bias use_rslora use_dora "
    "trainable_tokens=trainable_token_indices"
)
_STARTED = {ours: theirs for ours, theirs in _LORA.items() if ours != "use_dora"}  # whose start is no random one
_BOOL, _SEED = Option(bool), Option(int, 0, 2**31 - 1)
_START = {"init_lora_weights": Option(str, choices=("gaussian", "orthogonal"))}
_RATIO = {"lr_ratio": Option(float, 1, 1000, default=16.0, ours=True)}
_VIRTUAL = {"num_virtual_tokens": Option(int, 1, 4096, default=20)}
_ADALORA = {
    "init_r": Option(int, 1, 1024),
    "tinit": Option(int, 0),
    "tfinal": Option(int, 0),
    "deltaT": Option(int, 1),
    "beta1": Option(float, 0.01, 0.99),
    "beta2": Option(float, 0.01, 0.99),
    "orth_reg_weight": Option(float, 0, 100),
}
_OFT = {
    "oft_block_size": Option(int, 2, 8192, default=32),
    "coft": _BOOL,
    "block_share": _BOOL,
    "use_cayley_neumann": _BOOL,
    "num_cayley_neumann_terms": Option(int, 1, 100),
}
_LYCORIS = _takes(f"{_PLACED} {_PATTERNS} rank=r alpha dropout=rank_dropout")
_VERA = {"projection_prng_key": _SEED, "d_initial": Option(float, 0, 100), "save_projection": _BOOL}
_SPECTRAL = {"n_frequency": Option(int, 1), "scaling": Option(float, 0), "random_loc_seed": _SEED}

METHODS: Mapping[Algorithm, Method] = {
    # The LoRA family.
    Algorithm.LORA: Method("LoraConfig", _LORA, options=_START, quantizations=_ALL, served=True),
    Algorithm.QLORA: Method("LoraConfig", _LORA, quantizations=_QUANTIZED, served=True),
    Algorithm.DORA: Method("LoraConfig", _LORA, {"use_dora": True}, quantizations=_ALL, served=True),
    Algorithm.RSLORA: Method("LoraConfig", _LORA, {"use_rslora": True}, _START, quantizations=_ALL, served=True),
    Algorithm.PISSA: Method(
        "LoraConfig", _STARTED, {"init_lora_weights": "pissa"}, quantizations=_FLOATS, moves_base=True, served=True
    ),
    Algorithm.OLORA: Method(
        "LoraConfig", _STARTED, {"init_lora_weights": "olora"}, quantizations=_FLOATS, moves_base=True, served=True
    ),
    Algorithm.LOFTQ: Method("LoraConfig", _STARTED, quantizations=(Quantization.INT4,)),
    Algorithm.LORA_PLUS: Method("LoraConfig", _LORA, options=_START | _RATIO, quantizations=_ALL, served=True),
    Algorithm.ADALORA: Method(
        "AdaLoraConfig",
        _takes("target_modules modules_to_save rank=target_r alpha=lora_alpha dropout=lora_dropout"),
        options=_ADALORA,
    ),
    # Other low-rank changes.
    Algorithm.DELORA: Method(
        "DeloraConfig",
        _takes(f"{_PLACED} rank_pattern rank=r dropout=module_dropout bias"),
        options={"delora_lambda": Option(int, 1)},
        quantizations=_FLOATS,
    ),
    Algorithm.GRALORA: Method(
        "GraloraConfig",
        _takes(f"{_PLACED} rank=r alpha dropout=gralora_dropout bias"),
        options={"gralora_k": Option(int, 1), "hybrid_r": Option(int, 0)},
    ),
    Algorithm.RANDLORA: Method(
        "RandLoraConfig",
        _takes(f"{_PLACED} rank=r dropout=randlora_dropout bias"),
        options={
            "randlora_alpha": Option(int, 1),
            "projection_prng_key": _SEED,
            "sparse": _BOOL,
            "very_sparse": _BOOL,
            "save_projection": _BOOL,
        },
    ),
    Algorithm.TINYLORA: Method(
        "TinyLoraConfig",
        _takes(f"{_PLACED} rank=r dropout=tinylora_dropout bias"),
        options={"u": Option(int, 1), "weight_tying": Option(float, 0, 1), "projection_seed": _SEED},
        quantizations=_FLOATS,
    ),
    Algorithm.UNILORA: Method(
        "UniLoraConfig",
        _takes(f"{_PLACED} rank=r dropout=unilora_dropout bias"),
        options={"theta_d_length": Option(int, 1), "proj_seed": _SEED},
        quantizations=_FLOATS,
    ),
    Algorithm.VBLORA: Method(
        "VBLoRAConfig",
        _takes(f"{_PLACED} rank=r dropout=vblora_dropout bias"),
        options={
            "vector_length": Option(int, 1, default=256),
            "num_vectors": Option(int, 2),
            "topk": Option(int, 1),
            "save_only_topk_weights": _BOOL,
        },
        blocks="vector_length",
    ),
    Algorithm.VERA: Method("VeraConfig", _takes(f"{_PLACED} rank=r dropout=vera_dropout bias"), options=_VERA),
    Algorithm.PVERA: Method("PveraConfig", _takes(f"{_PLACED} rank=r dropout=pvera_dropout bias"), options=_VERA),
    Algorithm.LOHA: Method("LoHaConfig", _LYCORIS, quantizations=_NOT_INT4),
    Algorithm.LOKR: Method(
        "LoKrConfig",
        _LYCORIS,
        quantizations=_NOT_INT4,
        options={"decompose_both": _BOOL, "decompose_factor": Option(int, -1), "rank_dropout_scale": _BOOL},
    ),
    Algorithm.HIRA: Method("HiraConfig", _takes(f"{_PLACED} rank_pattern rank=r dropout=hira_dropout")),
    Algorithm.LILY: Method(
        "LilyConfig",
        _takes(f"{_PLACED} rank=r"),
        options={"stride_A": Option(int, 1), "num_B": Option(int, 1), "scaling": Option(float, 0)},
    ),
    Algorithm.MISS: Method("MissConfig", _takes(f"{_PLACED} rank=r dropout=miss_dropout bias")),
    Algorithm.BONE: Method(
        "MissConfig", _takes(f"{_PLACED} rank=r dropout=miss_dropout bias"), {"init_weights": "bat"}
    ),
    Algorithm.PEANUT: Method(
        "PeanutConfig",
        _takes(f"{_PLACED} rank=r"),
        quantizations=_NOT_INT4,
        options={"depth": Option(int, 0), "scaling": Option(float, 0)},
    ),
    Algorithm.GLORA: Method("GloraConfig", _takes(f"{_MODULES} rank=r bias"), quantizations=_FLOATS),
    # Rotations.
    Algorithm.OFT: Method(
        "OFTConfig", _takes(f"{_PLACED} dropout=module_dropout bias"), options=_OFT, blocks="oft_block_size"
    ),
    Algorithm.BOFT: Method(
        "BOFTConfig",
        _takes(f"{_PLACED} dropout=boft_dropout bias"),
        blocks="boft_block_size",
        options={"boft_block_size": Option(int, 2, default=4), "boft_n_butterfly_factor": Option(int, 1)},
    ),
    Algorithm.HRA: Method(
        "HRAConfig", _takes(f"{_PLACED} rank=r bias"), options={"apply_GS": _BOOL}, quantizations=_NOT_INT4
    ),
    Algorithm.PSOFT: Method(
        "PsoftConfig", _takes(f"{_PLACED} rank=r alpha=psoft_alpha dropout=psoft_dropout"), quantizations=_FLOATS
    ),
    Algorithm.ROAD: Method(
        "RoadConfig",
        _takes(_MODULES),
        blocks="group_size",
        options={
            "group_size": Option(int, 2, default=64),
            "variant": Option(str, choices=("road_1", "road_2", "road_4")),
        },
    ),
    # Scales, shifts and spectra.
    Algorithm.IA3: Method("IA3Config", _takes(_MODULES)),
    Algorithm.BEFT: Method("BeftConfig", _takes(_MODULES)),
    Algorithm.LN_TUNING: Method("LNTuningConfig", _takes(_MODULES), targets=Targets.NORMS),
    Algorithm.C3A: Method(
        "C3AConfig",
        _takes(f"{_PLACED} bias"),
        options={"block_size": Option(int, 1, default=256)},
        blocks="block_size",
    ),
    Algorithm.FOURIERFT: Method("FourierFTConfig", _takes(f"{_PLACED} bias"), options=_SPECTRAL),
    Algorithm.WAVEFT: Method(
        "WaveFTConfig", _takes(f"{_PLACED} bias"), options=_SPECTRAL | {"wavelet_family": Option(str)}
    ),
    # Some of the base model's own weights.
    Algorithm.SHIRA: Method("ShiraConfig", _takes(f"{_MODULES} rank=r seed=random_seed")),
    Algorithm.SUPERTUNING: Method(
        "SupertuningConfig",
        _takes(_MODULES),
        options={"sparsity": Option(float, 0, 1), "select_top": _BOOL},
        quantizations=_FLOATS,
    ),
    Algorithm.DEFT: Method(
        "DeftConfig", _takes(f"{_PLACED} rank=r alpha dropout=deft_dropout bias"), quantizations=_NOT_INT4
    ),
    # What stands before every text, and single tokens.
    Algorithm.PROMPT_TUNING: Method("PromptTuningConfig", {}, options=_VIRTUAL, targets=Targets.PROMPT),
    Algorithm.PREFIX_TUNING: Method(
        "PrefixTuningConfig",
        {},
        targets=Targets.PROMPT,
        options=_VIRTUAL | {"prefix_projection": _BOOL, "encoder_hidden_size": Option(int, 1)},
    ),
    Algorithm.P_TUNING: Method(
        "PromptEncoderConfig",
        {},
        targets=Targets.PROMPT,
        options=_VIRTUAL
        | {
            "encoder_hidden_size": Option(int, 1),
            "encoder_reparameterization_type": Option(str, choices=("MLP", "LSTM")),
        },
    ),
    Algorithm.TRAINABLE_TOKENS: Method(
        "TrainableTokensConfig", _takes("trainable_tokens=token_indices"), targets=Targets.TOKENS
    ),
}
