"""What teaches the model beside questions and answers: heads that say what is in a picture, and dreams of pictures.

The lower layers are to see, the upper ones to talk. Between them, the first `SEEN` numbers of every token are to
say what is in the picture: nothing at most tokens, and at nine of them what one of the nine places holds. A place's token is
one that comes after it, since no token knows of a later one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from checkpoint import GRID, IMAGE, PATCH, PICTURE, patches
from descent import branching
from shapes import COLOURS, PLACES, SHAPES
from torch import Tensor, nn
from transformers import FuyuForCausalLM
from truth import FORM, NAMES, places

SEEING = 4
"""So many layers see; the others talk."""
SEEN = 64
ROWS, COLUMNS = (4, 6, 7), (3, 6, GRID)
"""Where the tokens of a third of the picture are: after the middle of it, the last in the tokens that end a row."""
SPOTS = [ROWS[row] * (GRID + 1) + COLUMNS[column] for column, row in PLACES]
PATCHES = [n for n, token in enumerate(PICTURE) if token == IMAGE]


class Learner(nn.Module):
    """The model, with what teaches it and is then dropped."""

    def __init__(self, model: FuyuForCausalLM) -> None:
        super().__init__()
        self.model = model
        self.decoder.set_attn_implementation("quick")
        hidden = model.config.text_config.hidden_size
        self.early_norm, self.norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.position = nn.Linear(hidden, 2 * GRID)
        self.local = nn.Linear(hidden, PATCH * PATCH // 4)
        self.heads = nn.ModuleList([nn.Linear(hidden, 1 + len(names)) for names in NAMES])
        self.form = nn.Linear(hidden, FORM * FORM)
        self.spot = nn.Sequential(
            nn.Linear(hidden, 256), nn.GELU(), nn.Linear(256, 1 + len(SHAPES) + 1 + len(COLOURS) + 1)
        )
        self.imagine = nn.Linear(1 + len(SHAPES) + 1 + len(COLOURS) + len(PLACES) + 1, SEEN)

    @property
    def decoder(self) -> Any:
        """The Persimmon inside."""
        return self.model.model.language_model

    def layers(self, x: Tensor, mask: Tensor, where: Tensor, start: int, stop: int) -> list[Tensor]:
        """Some of the decoder's layers: what comes out of each, `(batch, tokens, hidden)`."""
        turn, outputs = self.decoder.rotary_emb(x, where), []
        for layer in self.decoder.layers[start:stop]:
            x = layer(x, attention_mask=mask, position_ids=where, position_embeddings=turn)
            outputs.append(x)
        return outputs

    def answers(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of the answers' tokens, and which of these tokens are right."""
        targets = labels[:, 1:]
        at = targets != -100
        logits = self.model.lm_head(self.decoder.final_layernorm(x[:, :-1][at])).float()
        return F.cross_entropy(logits, targets[at]), logits.argmax(-1) == targets[at]

    def embed(self, ids: Tensor, pixels: Tensor) -> Tensor:
        """Tokens and patches."""
        x = self.decoder.embed_tokens(ids)
        seen = self.model.model.vision_embed_tokens(patches(pixels.float()))
        return x.masked_scatter((ids == IMAGE).unsqueeze(-1), seen.to(x.dtype))

    def picture(self, batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What the lower layers make of pictures alone, `(batch, tokens of a picture, hidden)` of each layer."""
        ids = torch.tensor(PICTURE).expand(len(batch["pixels"]), -1)
        x = self.embed(ids, batch["pixels"])
        mask = torch.ones(1, 1, len(PICTURE), len(PICTURE)).tril()
        outputs = self.layers(x, mask, torch.arange(len(PICTURE))[None], 0, SEEING)
        return outputs[-1], outputs

    def look(self, batch: dict[str, Tensor], outputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The heads' loss over pictures, and which of these they get right."""
        count = GRID * GRID
        pixels = batch["cover"].view(-1, GRID, PATCH, GRID, PATCH).transpose(2, 3).reshape(-1, count, PATCH**2)
        covers = torch.stack([(pixels == n + 1).float().mean(-1) for n in range(4)], -1)
        most, best = covers.max(-1)
        shown = most > 0.15
        number = torch.where(shown, best + 1, 0)[..., None]
        labels = torch.gather(batch["items"], 1, number.expand(-1, -1, 3))
        labels[(most > 0.02) & ~shown] = -100  # too little of an item to tell
        # How much of the item has come by here: nobody can tell a shape from its upper edge.
        so_far = (covers.cumsum(1) / covers.sum(1, keepdim=True).clamp_min(1e-6)).gather(2, best[..., None])[..., 0]
        clear = torch.where(shown, so_far.square(), 0.2).flatten()
        half = PATCH // 2
        covered = (batch["cover"].view(-1, GRID, half, 2, GRID, half, 2) > 0).float().mean((3, 6))
        local = covered.transpose(2, 3).reshape(-1, count, half * half)
        forms = torch.gather(batch["forms"].flatten(2), 1, best[..., None].expand(-1, -1, FORM * FORM))

        early, normed = self.early_norm(outputs[1][:, PATCHES]), self.norm(outputs[-1][:, : len(PICTURE)])
        row, column = self.position(early).float().split(GRID, -1)
        order = torch.arange(count).expand(len(pixels), -1)
        loss = F.cross_entropy(row.flatten(0, 1), (order // GRID).flatten())
        loss = loss + F.cross_entropy(column.flatten(0, 1), (order % GRID).flatten())
        loss = loss + 3 * F.binary_cross_entropy_with_logits(self.local(early).float(), local)
        for n, head in enumerate(self.heads):
            each = F.cross_entropy(
                head(normed[:, PATCHES]).float().flatten(0, 1), labels[..., n].flatten(), reduction="none"
            )
            loss = loss + 2 * (each * clear).sum() / clear.sum()
        ready = shown & (so_far > 0.6)
        loss = loss + 3 * F.binary_cross_entropy_with_logits(self.form(normed[:, PATCHES])[ready].float(), forms[ready])
        held, radii = places(batch)
        shape, colour, radius = self.spot(normed[:, SPOTS]).float().split([1 + len(SHAPES), 1 + len(COLOURS), 1], -1)
        loss = loss + F.cross_entropy(shape.flatten(0, 1), held[..., 0].flatten())
        loss = loss + F.cross_entropy(colour.flatten(0, 1), held[..., 1].flatten())
        loss = loss + 5 * F.mse_loss(radius[..., 0], radii * 5)
        right = ((shape.argmax(-1) == held[..., 0]) & (colour.argmax(-1) == held[..., 1])).all(1)
        return loss, right

    def imagined(self, batch: dict[str, Tensor]) -> Tensor:
        """What the nine tokens should say, `(batch, places, SEEN)`."""
        held, radii = places(batch)
        shapes, colours = F.one_hot(held[..., 0], 1 + len(SHAPES)), F.one_hot(held[..., 1], 1 + len(COLOURS))
        where = torch.eye(len(PLACES)).expand(len(held), -1, -1)
        result: Tensor = self.imagine(torch.cat([shapes, colours, where, 5 * radii[..., None]], -1)).float()
        return result

    def missed(self, batch: dict[str, Tensor], x: Tensor) -> Tensor:
        """How far the tokens of pictures are from what they should say there."""
        said, spots = x[:, : len(PICTURE), :SEEN].float(), self.imagined(batch).detach()
        wanted = torch.zeros_like(said)
        wanted[:, SPOTS] = spots
        off = (said - wanted).square().mean(-1) / spots.var()
        return off[:, SPOTS].mean() + 0.3 * off.mean()

    def dream(self, batch: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and right tokens of answers about pictures that the upper layers are told of, and nobody sees.

        Args:
            batch: Rows without pictures.
            x: What the lower layers make of other pictures: what the nine tokens hold beside what they should say.
        """
        rows = len(batch["ids"])
        mask = branching(batch["parts"], batch["alone"]).float()
        text = self.layers(self.decoder.embed_tokens(batch["ids"]), mask, batch["where"], 0, SEEING)[-1]
        told = self.imagined(batch)
        told = told + 0.1 * told.detach().std() * torch.randn_like(told)
        beside = x.detach()[torch.randint(0, len(x), (rows,))][:, SPOTS, SEEN:]
        spots = torch.cat([told, beside.to(told.dtype)], -1)
        first = torch.zeros(rows, len(SPOTS), dtype=torch.long)
        parts, alone = torch.cat([first, batch["parts"]], 1), torch.cat([first, batch["alone"]], 1)
        where = torch.cat([torch.tensor(SPOTS).expand(rows, -1), batch["where"]], 1)
        x = self.layers(
            torch.cat([spots, text], 1), branching(parts, alone).float(), where, SEEING, len(self.decoder.layers)
        )[-1]
        return self.answers(x[:, len(SPOTS) :], batch["labels"])

    def see(self, batch: dict[str, Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        """All of it over rows with pictures: the lower layers' outputs, the answers' loss and right tokens."""
        mask = branching(batch["parts"], batch["alone"]).float()
        x = self.embed(batch["ids"], batch["pixels"])
        outputs = self.layers(x, mask, batch["where"], 0, len(self.decoder.layers))
        return outputs[:SEEING], *self.answers(outputs[-1], batch["labels"])
