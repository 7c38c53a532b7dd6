"""Attention with as few matrices as wanted (arXiv 2410.13732, "Reducing the Transformer Architecture to a Minimum")."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from leanformer.blocks.kit.attention import SoftmaxAttention
from leanformer.blocks.kit.base import OF_ANOTHER_KIND, Arguments, AttentionWeights, Block, register, set_linear
from leanformer.blocks.kit.distances import reach
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.tokens import check_divides
from leanformer.core.errors import LeanformerError


class TriangularLinear(nn.Module):
    """x T with T lower-triangular: d(d+1)/2 numbers are stored, optimized and saved, in row order.

    With q = k = x T the scores are x T Tᵀ xᵀ: symmetric, and any symmetric positive semi-definite similarity has such
    a T (its Cholesky factor). The paper's section on symmetric similarity.
    """

    decayed: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, d_model: int, bias: bool) -> None:
        super().__init__()
        self.d_model = d_model
        self.weight = nn.Parameter(torch.empty(d_model * (d_model + 1) // 2))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        self._index: torch.Tensor | None = None
        # The Gram matrix itself: the one orthogonal matrix that is triangular (up to signs).
        self.pack(torch.eye(d_model))

    def pack(self, matrix: torch.Tensor) -> None:
        """Takes the lower triangle of a (d_model, d_model) matrix as T."""
        rows, columns = torch.tril_indices(self.d_model, self.d_model)
        with torch.no_grad():
            self.weight.copy_(matrix[rows, columns])

    def matrix(self) -> torch.Tensor:
        """T, shape (d_model, d_model), differentiable in the stored numbers."""
        if torch.compiler.is_exporting():
            # By a formula, so that no table of positions is stored: row i starts at the i-th triangular number.
            index = torch.arange(self.d_model, device=self.weight.device)
            places = (index * (index + 1) // 2)[:, None] + index
            return self.weight[places.clamp(max=len(self.weight) - 1)].tril()
        # Not a buffer: it holds no state, and saved files are for state alone.
        if self._index is None or self._index.device != self.weight.device:
            with torch.inference_mode(False):  # it may be used in training later
                rows, columns = torch.tril_indices(self.d_model, self.d_model, device=self.weight.device)
                self._index = rows * self.d_model + columns
        flat = self.weight.new_zeros(self.d_model * self.d_model)
        return flat.index_copy(0, self._index, self.weight).view(self.d_model, self.d_model)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden_states, self.matrix().T, self.bias)


class MinimalAttentionModule(SoftmaxAttention):
    """The module that ``minimal_attention`` builds; the arguments are described there."""

    def __init__(
        self,
        d_model: int,
        heads: int,
        qk: str,
        vo: str,
        bias: bool,
        diagonal_value: bool,
        temperature: bool,
        qk_norm: bool,
        dropout: float,
        causal: bool = False,
        cross: bool = False,
        positions: str | None = None,
        max_distance: int | None = None,
    ) -> None:
        super().__init__(heads, dropout, causal, cross, positions == "rotary", max_distance, positions == "relative")
        self.qk_norm = qk_norm
        if qk == "symmetric":
            self.similarity: Any = TriangularLinear(d_model, bias)
        elif qk == "collapsed":
            self.similarity = nn.Linear(d_model, d_model, bias=bias)
        else:
            self.query = nn.Linear(d_model, d_model, bias=bias)
            self.key = nn.Linear(d_model, d_model, bias=bias)
        self.qk = qk
        self.value = nn.Linear(d_model, d_model, bias=bias) if vo != "none" else None
        self.output = nn.Linear(d_model, d_model, bias=bias) if vo == "separate" else None
        self.heads_in_output = heads if self.output is None else None
        self.diagonal_value = nn.Parameter(torch.ones(d_model)) if diagonal_value else None
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1)) if temperature else None

    def queries(self, states: torch.Tensor) -> torch.Tensor:
        return self.query(states) if self.qk == "separate" else self.similarity(states)

    def keys_and_values(self, states: torch.Tensor, queries: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if self.qk == "separate":
            keys = self.key(states)
        elif self.qk == "collapsed":
            keys = states
        else:
            keys = self.similarity(states) if queries is None else queries
        return keys, states if self.value is None else self.value(states)

    def sharpened(self, queries: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Applies a norm and a learned factor for each head, where it has them."""
        if self.qk_norm:
            by_head = (side.unflatten(-1, (self.heads, -1)) for side in (queries, keys))
            queries, keys = (F.rms_norm(side, side.shape[-1:]).flatten(-2) for side in by_head)
        if self.temperature is not None:
            queries = (queries.unflatten(-1, (self.heads, -1)) * self.temperature[:, 0]).flatten(-2)
        return queries, keys

    def projected(self, mixed: torch.Tensor) -> torch.Tensor:
        """Applies the diagonal value and the output matrix, where it has them."""
        if self.diagonal_value is not None:
            mixed = mixed * self.diagonal_value
        return mixed if self.output is None else self.output(mixed)

    @torch.no_grad()
    def initialize(self, how: str) -> None:
        """Fresh weights: ``orthogonal``, or ``normal`` with standard deviation 0.02 as Hugging Face's ViT has."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if how == "orthogonal":
                    nn.init.orthogonal_(module.weight)
                else:
                    nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, TriangularLinear):
                if how == "orthogonal":
                    module.pack(torch.eye(module.d_model))
                else:
                    nn.init.normal_(module.weight, std=0.02)

    @torch.no_grad()
    def initialize_from(self, teacher: AttentionWeights) -> None:
        """Collapses a trained attention into this form.

        One head: ``separate`` and ``collapsed`` give the same function exactly. The scores' terms that are equal for
        all keys of a query vanish in the softmax, so that of the query's and the key's bias only ``b_q W_kᵀ`` is left.

        Several heads: the collapsed score matrix serves head ``i`` with its columns of group ``i``; it gets those
        columns of that head's own product ``W_q,i W_k,iᵀ``, the closest in the Frobenius norm. Where the student has
        fewer heads, a group gets the mean of its teacher heads' products. The collapsed value matrix is ``W_v W_o``,
        the same function where all heads attend alike.

        Symmetric: the closest positive semi-definite matrix to the heads' mean product (its symmetric part
        without negative eigenvalues; Higham 1988, "Computing a nearest symmetric positive semidefinite matrix"), in
        triangular form by a QR decomposition.
        """
        d_model = teacher.query.shape[0]
        # The teacher's scores are scaled by its own heads' width, ours by our heads' width.
        scale = teacher.scaling * (d_model / self.heads) ** 0.5
        query_key = _head_products(teacher.query, teacher.key.T, teacher.num_heads) * scale  # (heads, d, d)
        if self.qk == "separate":
            root = scale**0.5
            set_linear(self.query, teacher.query * root, _scaled(teacher.query_bias, root))
            set_linear(self.key, teacher.key * root, _scaled(teacher.key_bias, root))
        elif self.qk == "collapsed":
            bias = None
            if teacher.query_bias is not None:
                per_head = _head_products(teacher.query_bias[None], teacher.key.T, teacher.num_heads) * scale
                bias = _own_columns(per_head, self.heads)[0]
            set_linear(self.similarity, _own_columns(query_key, self.heads), bias)
        else:
            total = query_key.mean(dim=0) * self.heads  # the heads' scores of the student sum to x T Tᵀ xᵀ
            values, vectors = torch.linalg.eigh((total + total.T) / 2)
            factor = vectors * values.clamp(min=0.0).sqrt()  # total ~ factor factorᵀ
            self.similarity.pack(torch.linalg.qr(factor.T).R.T.contiguous())
        if self.value is None:
            return
        if self.output is not None:
            set_linear(self.value, teacher.value, teacher.value_bias)
            set_linear(self.output, teacher.output, teacher.output_bias)
        else:
            # A softmax's weights sum to 1: a bias on the values passes through the average unchanged.
            bias = torch.zeros_like(teacher.value[0])
            if teacher.value_bias is not None:
                bias = bias + teacher.value_bias @ teacher.output
            if teacher.output_bias is not None:
                bias = bias + teacher.output_bias
            set_linear(self.value, teacher.value @ teacher.output, bias)


def _head_products(left: torch.Tensor, right: torch.Tensor, heads: int) -> torch.Tensor:
    """Head by head ``left[:, head] @ right[head, :]``, shape (heads, rows of left, columns of right)."""
    return torch.stack([a @ b for a, b in zip(left.chunk(heads, dim=1), right.chunk(heads, dim=0), strict=True)])


def _own_columns(products: torch.Tensor, heads: int) -> torch.Tensor:
    """One matrix whose ``i``-th group of columns comes from the teacher heads that head ``i`` stands for.

    Args:
        products: Shape (teacher heads, rows, d_model).
        heads: Heads of the student; one count divides the other.

    Returns:
        Shape (rows, d_model).
    """
    if heads <= len(products):
        per_head = products.unflatten(0, (heads, -1)).mean(dim=1)
    else:
        per_head = products.repeat_interleave(heads // len(products), dim=0)
    groups = per_head.chunk(heads, dim=-1)
    return torch.cat([group[head] for head, group in enumerate(groups)], dim=-1)


def _scaled(bias: torch.Tensor | None, factor: float) -> torch.Tensor | None:
    return None if bias is None else bias * factor


@register
class MinimalAttention(Block):
    """Attention stripped to the matrices that a plan asks for.

    ``qk``: *separate* has two d x d matrices; *collapsed* one, scores = x W xᵀ (head ``i`` scores with its d/h columns
    of x W against the same columns of x); *symmetric* a triangular one, scores = (x T)(x T)ᵀ, d(d+1)/2 numbers.
    In a decoder it is causal, and at a cross-attention it attends to the encoder's output; while decoding it keeps keys
    and values as Hugging Face's attention does.

    ``vo``: *separate* has value and output matrices; *collapsed* one; *none* none, so that the output is a convex
    combination of the input tokens.

    Source: arXiv 2410.13732, "Reducing the Transformer Architecture to a Minimum", for the forms; Henry et al. 2020,
    "Query-Key Normalization for Transformers" (arXiv 2010.04245), for ``qk_norm`` with a learned temperature.
    """

    name = "minimal_attention"
    kinds = frozenset({"self_attention", "cross_attention"})

    class Arguments(Arguments):
        """The arguments in a plan.

        Args:
            qk: Form of the scores.
            vo: Form of the values.
            heads: Channel groups that attend independently; None: as many as the model has there.
            diagonal_value: One learned factor for each channel of the output (d numbers, initialized to 1).
            temperature: One learned factor for each head's scores (heads numbers, initialized to 1).
            qk_norm: Root-mean-square norm of each head's queries and keys; bounds the scores by the temperature.
            bias: Biases of the projections; None: as in the attention that ``init: teacher`` takes over, else none.
            dropout: Probability with which an attention weight is dropped in training.
            init: ``orthogonal``, ``normal`` (deviation 0.02), or ``teacher``: collapse the attention that stands there.
            positions: ``rotary``: queries and keys are rotated by their positions, with the model's own angles; where a
                model tells positions in no other way, this is what knows of the order of tokens. ``relative``: scores
                have a learned bias by the distance of two tokens (heads * 32 numbers). ``none``: neither. None:
                ``rotary`` where the model's own attention does so; ``relative`` where it tells positions otherwise, and
                nothing else in the model does.
            max_distance: Tokens farther apart are not read, and while decoding no earlier ones are kept; at most the
                window of the model's own attention there, which is the default.
        """

        qk: Literal["separate", "collapsed", "symmetric"] = "collapsed"
        vo: Literal["separate", "collapsed", "none"] = "none"
        heads: Annotated[int, Field(ge=1)] | None = None
        diagonal_value: bool = False
        temperature: bool = False
        qk_norm: bool = False
        bias: bool | None = None
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
        init: Literal["orthogonal", "normal", "teacher"] = "orthogonal"
        positions: Literal["rotary", "relative", "none"] | None = None
        max_distance: Annotated[int, Field(ge=0)] | None = None

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        heads = arguments.heads or site.num_heads
        check_divides(site, "heads", heads)
        bias = arguments.bias
        if arguments.init == "teacher":
            if teacher is None:
                there = OF_ANOTHER_KIND if site.block == "attention" else f"{site.block!r} stands there"
                raise LeanformerError(
                    f"{site.name}: init 'teacher' takes over a Hugging Face attention, but {there}; take init "
                    "'orthogonal'"
                )
            if arguments.qk_norm:
                raise LeanformerError(
                    f"{site.name}: qk_norm changes the scores of the attention that init 'teacher' takes over; "
                    "leave one of them out"
                )
            separate = "separate" in (arguments.qk, arguments.vo)
            if separate and heads != teacher.num_heads:
                raise LeanformerError(
                    f"{site.name}: separate matrices taken from the teacher keep its {teacher.num_heads} heads, "
                    f"not {heads}; leave 'heads' out, or collapse qk and vo"
                )
            if max(heads, teacher.num_heads) % min(heads, teacher.num_heads):
                raise LeanformerError(
                    f"{site.name}: heads = {heads} neither divides nor is a multiple of the teacher's "
                    f"{teacher.num_heads} heads"
                )
            if bias is None:
                bias = teacher.has_bias
        if arguments.positions == "rotary" and not site.rotary:
            raise LeanformerError(
                f"{site.name}: positions 'rotary' rotates by the model's own angles, and there are none there; leave "
                "'positions' out"
            )
        if arguments.positions == "relative" and site.reads_source:
            raise LeanformerError(
                f"{site.name}: positions 'relative' are those of tokens that read their own text, and here they read "
                "the source; leave 'positions' out"
            )
        usual = "rotary" if site.rotary else "relative" if site.unplaced else None
        settings = {
            **arguments.model_dump(),
            "heads": heads,
            "bias": bool(bias),
            "positions": arguments.positions or usual,
            "max_distance": reach(site, arguments.max_distance),
        }
        if usual is None and settings["positions"] == "none":
            settings["positions"] = None
        return {key: value for key, value in settings.items() if value is not None}

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        settings = arguments.model_dump()
        init = settings.pop("init")
        module = MinimalAttentionModule(site.d_model, **settings, causal=site.causal, cross=site.reads_source)
        if init != "teacher":
            module.initialize(init)
        elif teacher is not None:
            module.initialize_from(teacher)
        return module
