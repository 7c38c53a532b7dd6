"""The words by which transformers' models name their parts, and what the finder cannot guess of single ones.

A new architecture that is not found takes a line here, or none: ``docs/adding-a-family.md``.
"""

from __future__ import annotations

from collections.abc import Mapping

PROJECTIONS: Mapping[str, tuple[str, ...]] = {
    "query": ("q_proj", "query", "q", "q_lin", "query_proj", "linear_q", "to_q", "wq", "Wq", "q_a_proj", "q_b_proj"),
    "key": ("k_proj", "key", "k", "k_lin", "key_proj", "linear_k", "to_k", "wk", "Wk", "kv_a_proj_with_mqa"),
    "value": ("v_proj", "value", "v", "v_lin", "value_proj", "linear_v", "to_v", "wv", "Wv", "kv_b_proj"),
}
"""Names of an attention's maps from tokens to queries, keys and values."""

FUSED = ("qkv", "qkv_proj", "Wqkv", "c_attn", "query_key_value", "att_proj", "qkv_linear", "query_key")
"""Names of one map to all three."""

OUTPUTS = (
    "o_proj",
    "out_proj",
    "o",
    "out_lin",
    "dense",
    "c_proj",
    "proj",
    "projection",
    "Wo",
    "wo",
    "linear_out",
    "to_out",
    "out",
    "post_proj",
    "proj_out",
    "projection_layer",
    "output",
)
"""Names of the map from an attention's heads to its output."""

OUTPUTS_BESIDE = ("output.dense", "output.projection", "out_proj", "o_proj", "dense")
"""Where that map stands beside an attention that lacks it, in the module that holds both."""

NORMS = ("LayerNorm", "layer_norm")
"""Names of the norm of an attention that adds the residual and norms the sum itself."""

CROSS = ("cross", "encoder_attn", "encdecattention", "encoder_decoder", "encoder_attention")
"""Parts of the names of a cross-attention; any other reads its own tokens."""

SOURCES = ("key_value_states", "encoder_hidden_states", "cross_attention_states")
"""Parameters by which a module gets the tokens of the source."""

CACHES = ("past_key_values", "past_key_value", "layer_past")
"""Parameters by which a module gets the cache while decoding."""

ROTARY = "position_embeddings"
"""The parameter by which an attention gets cosines and sines of positions."""

IN_ATTENTION = (
    ROTARY,
    "position_bias",
    "rel_pos",
    "relative_pos",
    "alibi",
    "relative_position_bias",
    "relative_position_embeddings",
    "rotary_pos_emb",
)
"""Parameters by which an attention gets positions."""

EMBEDDED_POSITIONS = ("position", "pos_emb", "pos_conv", "wpe")
"""Parts of the names of what adds positions to the hidden states before the first layer."""

RELATIVE_POSITIONS = ("relative", "rotary")
"""Parts of the names of what has such a name and hands positions to attentions alone."""

WINDOW = "sliding_window"
"""The configuration key of the window of all layers, where no key says which layers have one."""

WINDOWS_BY_LAYER: Mapping[str, Mapping[str, str]] = {
    "layer_types": {"sliding_attention": WINDOW, "chunked_attention": "attention_chunk_size"},
    "attention_layers": {"local": "window_size"},
}
"""Configuration keys of the kinds of layers -> kind -> the key that says how wide its window is. A chunk counts as a
window of its length."""

WINDOWS_EVERYWHERE = ("minimax",)
"""Model types whose window is that of all layers, whatever their kinds are called."""

NARROW_WINDOWS = ("gemma3_text",)
"""Model types whose windows of both directions do not hold the tokens that are exactly as far away."""

WINDOWED_CLASSES = {"LongT5LocalAttention": "local_radius"}
"""Classes of attentions with a window -> the configuration key of how far a token reads either way."""

MASKS = ("attention_mask", "mask")
"""Parameters by which an attention gets the mask of the tokens that it reads."""

MLPS = (
    "mlp",
    "ffn",
    "feed_forward",
    "feedforward",
    "ff",
    "DenseReluDense",
    "block_sparse_moe",
    "moe",
    "intermediate_mlp",
    "feed_forward_network",
)
"""Names of a module that is a whole MLP, or a mixture of several."""

PAIRS = (
    ("intermediate", "output.dense"),
    ("fc1", "fc2"),
    ("ffn", "ffn_output"),
    ("linear1", "linear2"),
    ("lin1", "lin2"),
    ("fc_in", "fc_out"),
    ("wi", "wo"),
)
"""Names of the two maps of an MLP that a layer holds itself."""

ACTIVATIONS = ("activation_fn", "activation", "act", "intermediate_act_fn")
"""Names of the activation between them, where the layer holds it too."""

ACTIVATION_DROPOUTS = ("activation_dropout", "activation_dropout_p")
"""Names of a layer's probability with which the neurons between them are dropped."""

SHARED_TABLES = {"relative_attention_bias": "has_relative_attention_bias", "rel_attn_embed": None}
"""Tables of relative positions that the first attention of a stack holds for all: their names, and those of the flags
by which an attention says that it holds one."""

POSITIONS = ("max_position_embeddings", "max_encoder_position_embeddings", "max_decoder_position_embeddings")
"""Configuration keys of the most tokens that a model reads; one whose positions are relative has none."""

PREFIX_TOKENS = ("cls_token", "distillation_token", "dist_token", "register_tokens", "class_embedding")
"""Names of the embeddings of tokens that stand before an image's patches; each has the shape (1, tokens, d_model), or
(d_model,) where it is one."""

NOT_FOUND: Mapping[str, str] = {
    "falcon_h1": "in each layer an attention and a state-space model share a cache",
    "ibert": "its layers of whole numbers hand scales on beside their outputs",
    "lilt": "its attention reads texts and places on a page side by side",
    "longformer": "its attention pads what it reads to whole windows, and masks it by itself",
    "squeezebert": "its attention reads channels before tokens",
    "openai-gpt": "its attention returns lists",
    "reformer": "its attention returns more than its output, and reverses layers in training",
    "fsmt": "its layers read tokens before the batch",
    "gemma3n_text": "its layers share keys and values",
    "gemma4_text": "its layers share keys and values, and differ in their configuration",
    "hrm_text": "its layers are run several times for each token, each time with a cache of its own",
    "led": "its attention pads what it reads to whole windows, and masks it by itself",
    "zamba": "its attention reads the embeddings beside the hidden states, and layers share it",
    "zamba2": "its attention reads the embeddings beside the hidden states, and layers share it",
    "cvt": "its attention reads images, not tokens",
    "hiera": "its attention joins tokens from layer to layer",
    "levit": "its attention reads images, not tokens",
    "mobilevitv2": "its attention reads channels before tokens",
    "pegasus_x": "its attention reads global tokens beside the text",
    "prophetnet": "its attention reads several streams of tokens",
    "swiftformer": "its attention reads images, not tokens",
    "timesformer": "its layers attend to time and to space, each in an attention of its own",
    "vitdet": "its attention reads rows and columns of tokens, in windows",
    "funnel": "its attention makes sequences shorter from stack to stack",
    "xlnet": "its attention reads two streams of tokens",
}
"""Model type -> why its attention cannot be replaced."""

NO_GRAPH: Mapping[str, str] = {
    "bigbird_pegasus": "which attention it computes depends on the length of what it reads",
    "longt5": "its attention pads what it reads to whole windows",
    "nllb-moe": "which of its experts compute depends on the numbers of each token",
    "switch_transformers": "which of its experts compute depends on the numbers of each token",
}
"""Model type -> why no graph can hold its translators, where one is made of all others."""

LAYERS_STAY = ("autoformer", "dpt", "llava", "longt5", "recurrent_gemma", "xmod")
"""Model types whose models read more of their layers than their outputs, so that none can be taken out."""

ATTENTION_CLASSES: Mapping[str, tuple[str, ...]] = {
    "deberta": ("DisentangledSelfAttention",),
}
"""Model type -> classes of its attentions, where transformers' tables name none, or others."""
