"""One sequence from another: an encoder reads all of the source before a decoder begins."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elman.errors import CellError, InputError
from elman.module.layer import Layer
from elman.module.plain import describe
from elman.module.search import Found, beam_search
from elman.module.sequence import Drawn, SequenceModel

ROUND = 8  # the memory's rows are rounded up to this, so that few decoders are compiled for sources of all lengths
PARTS = ("context", "memory", "mask")


class EncoderDecoder(nn.Module):
    """p(y | source): any layer reads the source, and any `SequenceModel` that takes what it has read as context.

        decoder = Conditioned(Attend(GRU(16 + 64, 64), memory_size=128), 128, "state")
        model = elman.EncoderDecoder(
            elman.Bidirectional(GRU(16, 64), GRU(16, 64)),
            elman.SequenceModel(decoder, symbols=30, embedding_size=16, longest=20),
            nn.Embedding(30, 16),
        )
        loss = -model.log_prob(y, lengths, source, source_lengths).mean()      # y (T, B), source (S, B)
        found = model.beam_search(source, source_lengths, width=5)

    The decoder's cell takes by name what it needs: `context` (B, N), all last states of the encoder side by side, as
    `elman.cell.Conditioned` does, which makes it the bridge; `memory` (B, S, M) and `mask` (B, S), the encoder's
    outputs, as `elman.cell.Attend` does. With the source itself as y this is a sequence autoencoder.
    Shapes: source (S, B) of symbols with an embedding, else (S, B, I); source_lengths (B,), at least 1.
    Errors: CellError where the decoder takes nothing of the encoder; InputError where tensors do not fit.
    Source: Cho et al. (2014), arXiv:1406.1078; Sutskever, Vinyals, Le (2014), arXiv:1409.3215.
    """

    def __init__(self, encoder: Layer, decoder: SequenceModel, embedding: nn.Module | None = None) -> None:
        super().__init__()
        if not isinstance(encoder, Layer) or not isinstance(decoder, SequenceModel):
            raise CellError(
                "EncoderDecoder takes a layer and a SequenceModel; "
                f"got a {type(encoder).__name__} and a {type(decoder).__name__}"
            )
        if encoder.batch_first:
            raise CellError("EncoderDecoder: the encoder reads (S, B, ...); leave its batch_first out")
        self.takes = decoder.feedback.signature.context & set(PARTS)
        if not self.takes:
            raise CellError(
                "EncoderDecoder: the decoder's cell takes nothing of the source; put elman.cell.Conditioned or "
                "elman.cell.Attend around it"
            )
        self.encoder, self.decoder, self.embedding = encoder, decoder, embedding

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """What the decoder's cell takes of the source, by name."""
        dims = 2 if self.embedding is not None else 3
        if not isinstance(source, Tensor) or source.dim() != dims:
            want = "(S, B) of symbols" if dims == 2 else "(S, B, I)"
            raise InputError(f"source must be a tensor {want}; got {describe(source)}")
        S, B = source.shape[:2]
        if lengths is not None and len(lengths) and int(torch.as_tensor(lengths).min()) < 1:
            raise InputError("source_lengths must be at least 1: there is nothing to decode from")
        x = source if self.embedding is None else self.embedding(source)
        outputs, state = self.encoder(x, lengths=lengths)
        found = {"context": torch.cat(flat(state), -1)}
        if "memory" in self.takes:
            ends = torch.as_tensor([S] * B if lengths is None else lengths, device=source.device)
            found["memory"] = F.pad(outputs.transpose(0, 1), (0, 0, 0, -S % ROUND))  # (B, S', M)
            found["mask"] = torch.arange(found["memory"].shape[1], device=source.device) < ends[:, None]
        return self.decoder.feedback.prepare({k: v for k, v in found.items() if k in self.takes})

    def forward(
        self, y: Tensor, lengths: Tensor | None, source: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        """`log_prob`."""
        return self.log_prob(y, lengths, source, source_lengths)

    def log_prob(
        self, y: Tensor, lengths: Tensor | None, source: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        """log p(y | source) of each row, in nats, (B,)."""
        return self.decoder.log_prob(y, lengths, **self.encode(source, source_lengths))

    def loss(
        self,
        y: Tensor,
        lengths: Tensor | None,
        source: Tensor,
        source_lengths: Tensor | None = None,
        *,
        truth: float = 1.0,
        free: float = 0.0,
    ) -> Tensor:
        """Nats per row to make small; `truth` and `free` as in `SequenceModel.loss`."""
        return self.decoder.loss(y, lengths, truth=truth, free=free, **self.encode(source, source_lengths))

    @torch.no_grad()
    def sample(self, source: Tensor, source_lengths: Tensor | None = None, **how: Any) -> Drawn:
        """A sequence for each row, drawn, or with greedy=True the likeliest symbol at each step."""
        given: dict[str, Any] = self.encode(source, source_lengths)
        return self.decoder.sample(source.shape[1], **how, **given)

    @torch.no_grad()
    def beam_search(self, source: Tensor, source_lengths: Tensor | None = None, **how: Any) -> Found:
        """The likeliest sequences for each row; options as in `elman.beam_search`."""
        given: dict[str, Any] = self.encode(source, source_lengths)
        return beam_search(self.decoder, source.shape[1], **how, **given)


def flat(state: Any) -> list[Tensor]:
    """All tensors (B, width) of a layer's state, however deep."""
    return [state] if isinstance(state, Tensor) else [tensor for part in state for tensor in flat(part)]
