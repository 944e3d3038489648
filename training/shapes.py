"""Synthetic pictures of coloured shapes, and questions about them with one right answer each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

SHAPES = ("circle", "square", "triangle", "star")
COLOURS: dict[str, list[RGB]] = {
    "red": [(255, 0, 0), (220, 30, 35), (200, 20, 30), (230, 60, 60), (237, 28, 36)],
    "orange": [(255, 140, 0), (255, 165, 0), (245, 130, 30), (255, 127, 39)],
    "yellow": [(255, 255, 0), (255, 225, 30), (250, 210, 20), (255, 242, 0)],
    "green": [(0, 128, 0), (40, 170, 60), (0, 255, 0), (60, 190, 80), (34, 177, 76)],
    "blue": [(0, 0, 255), (30, 90, 220), (63, 72, 204), (20, 60, 160), (60, 140, 240), (0, 162, 232)],
    "purple": [(128, 0, 128), (140, 60, 180), (163, 73, 164), (110, 40, 160), (150, 80, 220)],
    "pink": [(255, 105, 180), (255, 150, 190), (255, 174, 201), (255, 192, 203)],
    "black": [(0, 0, 0), (25, 25, 28)],
    "white": [(255, 255, 255), (245, 245, 245)],
}
PASTELS: list[RGB] = [
    (225, 240, 255),
    (255, 235, 225),
    (230, 250, 230),
    (250, 245, 215),
    (240, 230, 250),
    (235, 235, 235),
    (205, 220, 235),
    (240, 215, 215),
]
DARKS: list[RGB] = [(0, 0, 0), (30, 30, 35), (15, 25, 60), (45, 25, 55), (20, 50, 40), (60, 60, 65)]

# the nine regions of a picture by (column, row), as answers name them
PLACES = {
    (0, 0): "in the top left",
    (1, 0): "at the top",
    (2, 0): "in the top right",
    (0, 1): "on the left",
    (1, 1): "in the middle",
    (2, 1): "on the right",
    (0, 2): "in the bottom left",
    (1, 2): "at the bottom",
    (2, 2): "in the bottom right",
}


# ---------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Item:
    """One shape: what and where it is (fractions of the picture), and how it is drawn."""

    shape: str
    colour: str
    column: int
    row: int
    x: float
    y: float
    radius: float
    rgb: RGB
    outline: tuple[Point, ...]  # unit coordinates around the centre
    border: RGB | None = None  # a thin line in another colour around the shape
    hollow: float = 0.0  # the line's width in radii, where only the outline is drawn

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str:
        return PLACES[self.column, self.row]


@dataclass(frozen=True)
class Scene:
    """A background and 0 to 4 items, ordered by column and then by row."""

    items: tuple[Item, ...]
    background: tuple[RGB, RGB, RGB, RGB]  # the four corners


def _jitter(rng: Random, rgb: RGB, by: int = 12) -> RGB:
    r, g, b = (max(0, min(255, v + rng.randint(-by, by))) for v in rgb)
    return r, g, b


def _distance(a: RGB, b: RGB) -> float:
    return math.dist(a, b)


def _background(rng: Random) -> tuple[RGB, RGB, RGB, RGB]:
    kind = rng.random()
    if kind < 0.35:
        a: RGB = (255, 255, 255)
    elif kind < 0.7:
        a = _jitter(rng, rng.choice(PASTELS), 15)
    elif kind < 0.88:
        a = _jitter(rng, rng.choice(DARKS))
    else:
        a = _jitter(rng, rng.choice(COLOURS[rng.choice(list(COLOURS))]))
    if kind < 0.25 or rng.random() < 0.6:
        return a, a, a, a
    b = _jitter(rng, a, 30)  # a gradient, along one side or across
    return rng.choice([(a, b, a, b), (a, a, b, b), (a, _jitter(rng, a, 20), _jitter(rng, b, 5), b)])


def _outline(rng: Random, shape: str) -> tuple[Point, ...]:
    """The outline in unit coordinates: turned, squashed a little, and sometimes drawn with an unsteady hand."""
    turn = math.radians(rng.gauss(0, 7) if rng.random() < 0.85 else rng.uniform(-22, 22))
    if shape == "circle":
        corners = [(math.cos(t), math.sin(t)) for t in (i * math.tau / 40 for i in range(40))]
    elif shape == "square":
        corners = [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    elif shape == "triangle":
        if rng.random() < 0.12:
            turn = rng.uniform(0, math.tau)
        high = rng.uniform(0.9, 1.2)
        corners = [(rng.gauss(0, 0.08), -1.15 * high), (1.0, 0.58 * high), (-1.0, 0.58 * high)]
    else:
        if rng.random() < 0.3:
            turn = rng.uniform(0, math.tau)
        deep = rng.uniform(0.38, 0.52)
        corners = [
            (
                (1.12 if i % 2 == 0 else 1.12 * deep) * math.sin(i * math.pi / 5),
                (-1.12 if i % 2 == 0 else -1.12 * deep) * math.cos(i * math.pi / 5),
            )
            for i in range(10)
        ]
    if shape != "circle" and rng.random() < 0.4:
        corners = [(x + rng.gauss(0, 0.04), y + rng.gauss(0, 0.04)) for x, y in corners]
    if rng.random() < 0.35:  # low-frequency wobble along edges cut into short pieces
        pieces = 1 if shape == "circle" else 4
        points = [
            (ax + (bx - ax) * i / pieces, ay + (by - ay) * i / pieces)
            for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True)
            for i in range(pieces)
        ]
        waves = [(k, rng.gauss(0, 0.018), rng.uniform(0, math.tau)) for k in (2, 3, 5)]
        grow = [1 + sum(s * math.cos(k * math.atan2(y, x) + p) for k, s, p in waves) for x, y in points]
        corners = [(x * g, y * g) for (x, y), g in zip(points, grow, strict=True)]
    sx = math.exp(rng.gauss(0, 0.05))
    cos, sin = math.cos(turn), math.sin(turn)
    return tuple(((x * sx) * cos - (y / sx) * sin, (x * sx) * sin + (y / sx) * cos) for x, y in corners)


def make_scene(rng: Random, *, plain: bool = False) -> Scene:
    """A random scene: every shape well inside its own region, no two touching, every colour clear of the background.

    A plain one has three shapes at most, as large as they can be or nearly so.
    """
    background = _background(rng)
    count = rng.choices([0, 1, 2, 3, 4], [2, 24, 37, 37, 0] if plain else [2, 20, 28, 28, 22])[0]
    cells = rng.sample(list(PLACES), count)
    centres = [((c + 0.5) / 3 + rng.uniform(-0.06, 0.06), (r + 0.5) / 3 + rng.uniform(-0.06, 0.06)) for c, r in cells]
    doubles = rng.random() < 0.15
    items: list[Item] = []
    for (column, row), (x, y) in zip(cells, centres, strict=True):
        near = min([math.dist((x, y), other) for other in centres if other != (x, y)], default=1.0)
        largest = min(0.22, near / 2 / 1.12 - 0.01, min(x, y, 1 - x, 1 - y) / 1.02)
        radius = rng.uniform(min(0.13 if plain else 0.09, largest), largest)
        while True:
            colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
            if items and doubles and rng.random() < 0.5:
                colour, shape = items[0].colour, items[0].shape
            elif any((i.colour, i.shape) == (colour, shape) for i in items):
                continue
            rgb = _jitter(rng, rng.choice(COLOURS[colour]))
            if min(_distance(rgb, corner) for corner in background) > 75:
                break
            doubles = False
        border, hollow = None, 0.0
        if rng.random() < 0.15:
            border = rng.choice([(0, 0, 0), (60, 60, 60), _jitter(rng, rgb, 60)])
        items.append(Item(shape, colour, column, row, x, y, radius, rgb, _outline(rng, shape), border, hollow))
    return Scene(tuple(sorted(items, key=lambda i: (i.column, i.row))), background)


def render(scene: Scene, width: int, height: int, smooth: int = 1) -> Image.Image:
    """Draw the scene; `smooth` > 1 draws that many times larger and averages, which smooths the edges."""
    w, h = width * smooth, height * smooth
    corners = Image.new("RGB", (2, 2))
    corners.putdata(list(scene.background))
    image = corners.resize((w, h), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for item, points in zip(scene.items, outlines(scene, w, h), strict=True):
        unit = item.radius * math.sqrt(w * h)
        if item.hollow:
            draw.line(points + points[:2], fill=item.rgb, width=max(2, round(item.hollow * unit)), joint="curve")
        else:
            draw.polygon(points, fill=item.rgb)
            if item.border:
                draw.line(points + points[:2], fill=item.border, width=max(1, round(0.05 * unit)), joint="curve")
    return image.reduce(smooth) if smooth > 1 else image


def outlines(scene: Scene, width: int, height: int) -> list[list[Point]]:
    """Every item's outline in pixels of a picture of this size."""
    unit = math.sqrt(width * height)
    return [
        [(i.x * width + px * i.radius * unit, i.y * height + py * i.radius * unit) for px, py in i.outline]
        for i in scene.items
    ]


def source_size(rng: Random, lowest: int = 180, highest: int = 420) -> tuple[int, int]:
    """A picture size (width, height), often square and never far from it."""
    side = rng.randint(lowest, highest)
    aspect = 1.0 if rng.random() < 0.5 else math.exp(rng.uniform(-0.3, 0.3))
    return round(side * math.sqrt(aspect)), round(side / math.sqrt(aspect))


def example_scene() -> Scene:
    """The picture shipped with the checkpoint: a red circle left, a blue square right, a green triangle below."""
    ring = tuple((math.cos(i * math.tau / 90), math.sin(i * math.tau / 90)) for i in range(90))
    square = ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88))
    triangle = ((0.0, -1.12), (1.04, 0.62), (-1.04, 0.62))
    top, low = (252, 252, 250), (226, 236, 248)
    return Scene(
        (
            Item("circle", "red", 0, 0, 0.22, 0.25, 0.145, (222, 45, 48), ring),
            Item("triangle", "green", 1, 2, 0.5, 0.79, 0.155, (46, 160, 67), triangle),
            Item("square", "blue", 2, 0, 0.78, 0.25, 0.15, (38, 96, 214), square),
        ),
        (top, top, low, low),
    )


# ---------------------------------------------------------------- questions


@dataclass(frozen=True)
class Turn:
    """One question and its only right answer; `focus` is the one item that a follow-up's "it" means."""

    kind: str
    question: str
    answer: str
    focus: Item | None = None


PICTURES = ("the picture", "the image", "this picture", "this image", "the photo", "the drawing")
DESCRIBE = (
    "What is in {pic}?",
    "What is in {pic}?",
    "What's in {pic}?",
    "What do you see?",
    "What do you see in {pic}?",
    "Describe {pic}.",
    "Describe {pic}.",
    "Describe what you see.",
    "What can you see?",
    "What can you see in {pic}?",
    "Tell me what you see.",
    "What is this?",
    "What does {pic} show?",
    "What is shown in {pic}?",
    "Which shapes are in {pic}?",
    "What shapes do you see?",
    "What shapes are there?",
    "List the shapes.",
    "List the shapes in {pic}.",
    "What objects are in {pic}?",
    "Can you describe {pic}?",
    "What is there in {pic}?",
    "Describe {pic} in detail.",
    "What is {pic} about?",
    "Explain {pic}.",
    "Tell me about {pic}.",
    "Describe.",
    "What is on {pic}?",
    "What things are in {pic}?",
    "Name everything in {pic}.",
    "Write a caption for {pic}.",
    "Which shapes do you see and where are they?",
    "Give me a description of {pic}.",
)
WHERE = (
    "Where is the {n}?",
    "Where is the {n}?",
    "Where is the {n}?",
    "Where's the {n}?",
    "Where is the {n} in {pic}?",
    "Where can I find the {n}?",
    "In which part of {pic} is the {n}?",
    "Tell me where the {n} is.",
    "Find the {n}.",
    "What is the position of the {n}?",
    "Where do you see the {n}?",
    "Locate the {n}.",
    "Where can you see the {n}?",
)
COUNT = (
    "How many {n} are there?",
    "How many {n} are there?",
    "How many {n} do you see?",
    "How many {n} are in {pic}?",
    "Count the {n}.",
    "How many {n}?",
    "What is the number of {n}?",
    "How many {n} can you see?",
    "How many {n} are there in {pic}?",
    "How many {n} does {pic} have?",
    "Tell me how many {n} there are.",
    "Can you count the {n}?",
    "Count the {n} in {pic}.",
)
COLOUR_OF = (
    "What {colour} is the {n}?",
    "What {colour} is the {n}?",
    "What {colour} is the {n}?",
    "What is the {colour} of the {n}?",
    "Which {colour} is the {n}?",
    "Which {colour} does the {n} have?",
    "Tell me the {colour} of the {n}.",
    "What {colour} is the {n} in {pic}?",
    "What {colour} does the {n} have?",
    "Name the {colour} of the {n}.",
)
SHAPE_OF = (
    "What shape is {c}?",
    "What shape is {c}?",
    "Which shape is {c}?",
    "What is {c}?",
    "What {c} shape is there?",
    "What {c} shape do you see?",
    "What shape is the {c} one?",
    "What shape is the {c} thing?",
    "Which one is {c}?",
    "Which object is {c}?",
    "What is the {c} shape?",
    "What is the {c} thing?",
    "Which shape in {pic} is {c}?",
    "What shape is the {c} object?",
    "What is the shape of the {c} object?",
)
IS_THERE = (
    "Is there {a}?",
    "Is there {a}?",
    "Is there {a}?",
    "Is there {a} in {pic}?",
    "Do you see {a}?",
    "Can you see {a}?",
    "Does {pic} have {a}?",
    "Does {pic} contain {a}?",
    "Does {pic} show {a}?",
    "Is {a} in {pic}?",
    "Do you see {a} in {pic}?",
)
ARE_THERE = (
    "Are there any {n}?",
    "Do you see any {n}?",
    "Are there any {n} in {pic}?",
    "Any {n}?",
    "Are there {n}?",
    "Can you see any {n}?",
    "Are there {n} in {pic}?",
)
SIDES = {
    "left of": ("left of", "to the left of", "on the left of", "to the left side of"),
    "right of": ("right of", "to the right of", "on the right of", "to the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath", "lower than"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
WHAT_SIDE = (
    "What is {d} the {n}?",
    "What is {d} the {n}?",
    "What is {d} the {n}?",
    "What do you see {d} the {n}?",
    "Which shape is {d} the {n}?",
    "What shape is {d} the {n}?",
    "Which shapes are {d} the {n}?",
    "What's {d} the {n}?",
    "Is there anything {d} the {n}?",
    "What can you see {d} the {n}?",
    "Which object is {d} the {n}?",
)
# how people name a place, the answer's name for it, and the (column, row) it means, None for the whole row or column
SPOTS: list[tuple[tuple[str, ...], str, int | None, int | None]] = [
    (("on the left", "on the left side", "at the left", "in the left part"), "on the left", 0, None),
    (("on the right", "on the right side", "at the right", "in the right part"), "on the right", 2, None),
    (("at the top", "on top", "in the upper part", "on the top"), "at the top", None, 0),
    (("at the bottom", "on the bottom", "in the lower part", "in the bottom part"), "at the bottom", None, 2),
    (("in the middle", "in the center", "in the centre", "in the middle of {pic}"), "in the middle", 1, 1),
]
SPOTS += [
    (
        (f"in the {v} {h}", f"in the {v} {h} corner", f"in the {u} {h}", f"in the {u} {h} corner", f"at the {v} {h}"),
        f"in the {v} {h}",
        c,
        r,
    )
    for v, u, r in (("top", "upper", 0), ("bottom", "lower", 2))
    for h, c in (("left", 0), ("right", 2))
]
WHAT_AT = (
    "What is {at}?",
    "What is {at}?",
    "What do you see {at}?",
    "Which shape is {at}?",
    "What shape is {at}?",
    "What's {at}?",
    "Is there anything {at}?",
    "What can you see {at}?",
    "What is {at} of {pic}?",
    "Which shapes are {at}?",
)
COLOUR_AT = (
    "What {colour} is the shape {at}?",
    "What {colour} is the shape {at}?",
    "What is the {colour} of the shape {at}?",
    "What {colour} is the one {at}?",
    "What {colour} is the thing {at}?",
    "Which {colour} is the shape {at}?",
)
COLOURS_SEEN = (
    "What {colour}s do you see?",
    "Which {colour}s are in {pic}?",
    "What {colour}s are there?",
    "List the {colour}s.",
    "What {colour}s are the shapes?",
    "Which {colour}s do the shapes have?",
    "What {colour}s are in {pic}?",
    "What are the {colour}s of the shapes?",
    "Name the {colour}s.",
    "Which {colour}s can you see?",
)
SIZE = (
    "What is the {s} shape?",
    "Which shape is the {s}?",
    "Which shape is {s}?",
    "What is the {s} object?",
    "Find the {s} shape.",
    "Which one is the {s}?",
    "What is the {s} thing in {pic}?",
    "Which shape in {pic} is the {s}?",
)
OTHERS = (
    "cat",
    "dog",
    "car",
    "house",
    "tree",
    "person",
    "man",
    "woman",
    "bird",
    "fish",
    "horse",
    "ball",
    "box",
    "boat",
    "bike",
    "plane",
    "train",
    "table",
    "chair",
    "cup",
    "book",
    "flower",
    "apple",
    "banana",
    "cake",
    "hat",
    "shoe",
    "phone",
    "computer",
    "key",
    "clock",
    "lamp",
    "door",
    "window",
    "moon",
    "sun",
    "cloud",
    "heart",
    "arrow",
    "hexagon",
    "pentagon",
    "rectangle",
    "diamond",
    "oval",
    "cube",
    "line",
    "cross",
    "face",
    "hand",
    "eye",
    "child",
    "boy",
    "girl",
    "cow",
    "sheep",
    "elephant",
    "bear",
    "lion",
    "mouse",
    "bus",
    "truck",
    "road",
    "river",
    "mountain",
    "bottle",
    "glass",
    "pizza",
    "sandwich",
    "letter",
    "number",
    "word",
    "sign",
    "robot",
)
GREETINGS = (
    "Hello",
    "Hello!",
    "Hi",
    "Hi!",
    "Hi there",
    "Hey",
    "Hello there!",
    "Good morning",
    "Good evening!",
    "Good day",
    "Hello, how are you?",
    "How are you?",
    "hello model",
    "Greetings!",
)
ABOUT = (
    "Who are you?",
    "What are you?",
    "What can you do?",
    "What is your name?",
    "Help",
    "Help me",
    "What do you know?",
    "How can you help me?",
    "Tell me about yourself.",
    "What can I ask you?",
    "Are you a robot?",
    "Are you human?",
    "What questions can I ask?",
    "Introduce yourself.",
    "What are you able to do?",
)
THANKS = (
    "Thanks",
    "Thank you",
    "Thank you!",
    "Thanks a lot!",
    "Thank you very much.",
    "Great, thanks!",
    "Cool, thank you.",
    "Good job!",
    "Well done",
    "Nice!",
    "Great!",
    "Ok",
    "Okay.",
)
BYES = ("Bye", "Goodbye", "Bye!", "See you", "Good night", "See you later!", "Goodbye!")
OFF_TOPIC = (
    "What is the capital of France?",
    "Who is the president?",
    "Tell me a joke.",
    "Write a poem.",
    "What is 2 + 2?",
    "Sing a song.",
    "How is the weather today?",
    "What time is it?",
    "Translate this to German.",
    "Write a Python function.",
    "Who won the game?",
    "Tell me a story.",
    "What is the meaning of life?",
    "How old are you?",
    "Where do you live?",
    "What day is today?",
    "How do I bake bread?",
    "Explain quantum physics.",
    "What is the largest planet?",
    "Do you like music?",
    "Why is the sky blue?",
    "Write an email to my boss.",
    "What is machine learning?",
    "Who wrote Hamlet?",
    "How far is the moon?",
    "Solve x + 3 = 7.",
    "Give me a recipe for soup.",
    "What should I eat today?",
    "Recommend a movie.",
    "What is love?",
    "Count to ten.",
    "Is it raining?",
    "Who made you?",
    "Can you write code?",
    "Summarize this text.",
    "What is the tallest mountain?",
    "Tell me the news.",
    "How do computers work?",
    "What is the price of gold?",
    "Do you speak French?",
    "When was Rome founded?",
    "Play a game with me.",
)
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant that answers questions about pictures.",
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human's questions.",
    "Answer the question about the image.",
    "Be brief.",
    "You are a vision model. Answer in one sentence.",
    "You answer questions about shapes.",
    "You are a friendly chatbot.",
)
BEFORE = ("Please tell me: ", "Can you tell me: ", "Hey, ", "Tell me, ", "So, ", "And ", "Question: ")
NO_PICTURE = "I see no picture. Please show me one with coloured shapes."


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _see(items: list[Item] | tuple[Item, ...]) -> str:
    return "I see " + _join([f"{_a(i.name)} {i.place}" for i in items]) + "."


def _noun(scene: Scene, rng: Random, present: float = 0.65) -> tuple[str, str, list[Item]]:
    """A thing to ask about, as (asked, answered, the items that match): "red circle", "circle" or "red shape"."""
    if scene.items and rng.random() < present:
        colour, shape = (lambda i: (i.colour, i.shape))(rng.choice(scene.items))
    else:
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
        if scene.items and rng.random() < 0.5:  # half right: the difficult absent ones
            other = rng.choice(scene.items)
            colour, shape = (other.colour, shape) if rng.random() < 0.5 else (colour, other.shape)
    form = rng.random()
    if form < 0.55:
        noun = f"{colour} {shape}"
        return noun, noun, [i for i in scene.items if i.name == noun]
    if form < 0.82:
        return shape, shape, [i for i in scene.items if i.shape == shape]
    asked = rng.choice(["shape", "shape", "one", "thing", "object"])
    return f"{colour} {asked}", f"{colour} shape", [i for i in scene.items if i.colour == colour]


def _describe(scene: Scene, rng: Random) -> Turn:
    focus = scene.items[0] if len(scene.items) == 1 else None
    return Turn("describe", rng.choice(DESCRIBE), _see(scene.items) if scene.items else "I see no shapes.", focus)


def _where(scene: Scene, rng: Random) -> Turn:
    asked, noun, found = _noun(scene, rng)
    if len(found) > 1:
        return Turn("where", rng.choice(WHERE).format(n=asked, pic="{pic}"), _see(found))
    answer = f"The {noun} is {found[0].place}." if found else f"There is no {noun}."
    return Turn("where", rng.choice(WHERE).format(n=asked, pic="{pic}"), answer, found[0] if found else None)


def _plural(noun: str) -> str:
    return noun + "s"


def _number(noun: str, count: int) -> str:
    if count == 0:
        return f"There are no {_plural(noun)}."
    return f"There is 1 {noun}." if count == 1 else f"There are {count} {_plural(noun)}."


def _count(scene: Scene, rng: Random) -> Turn:
    if rng.random() < 0.4:
        asked, noun, found = rng.choice(["shape", "shape", "object", "thing", "figure"]), "shape", list(scene.items)
    else:
        asked, noun, found = _noun(scene, rng, 0.75)
        asked = noun if asked.endswith("one") else asked
    return Turn(
        "count",
        rng.choice(COUNT).format(n=_plural(asked), pic="{pic}"),
        _number(noun, len(found)),
        found[0] if len(found) == 1 else None,
    )


def _colour_of(scene: Scene, rng: Random) -> Turn:
    shape = rng.choice(scene.items).shape if scene.items and rng.random() < 0.8 else rng.choice(SHAPES)
    found = [i for i in scene.items if i.shape == shape]
    question = rng.choice(COLOUR_OF).format(n=shape, pic="{pic}", colour="{colour}")
    if len(found) < 2:
        answer = f"The {shape} is {found[0].colour}." if found else f"There is no {shape}."
        return Turn("colour", question, answer, found[0] if found else None)
    if rng.random() < 0.5:
        for one, many in (("is the", "are the"), ("does the", "do the"), (f"the {shape}", f"the {shape}s")):
            question = question.replace(one, many)
    return Turn("colour", question, f"The {shape}s are {_join(list(dict.fromkeys(i.colour for i in found)))}.")


def _shape_of(scene: Scene, rng: Random) -> Turn:
    colour = rng.choice(scene.items).colour if scene.items and rng.random() < 0.8 else rng.choice(list(COLOURS))
    found = [i for i in scene.items if i.colour == colour]
    question = rng.choice(SHAPE_OF).format(c=colour, pic="{pic}")
    if len(found) < 2:
        answer = f"The {colour} shape is {_a(found[0].shape)}." if found else f"There is no {colour} shape."
        return Turn("shape", question, answer, found[0] if found else None)
    return Turn("shape", question, f"The {colour} shapes are {_join([_a(i.shape) for i in found])}.")


def _is_there(scene: Scene, rng: Random) -> Turn:
    asked, noun, found = _noun(scene, rng, 0.55)
    if asked.endswith(("one", "thing")) and rng.random() < 0.5:
        question = f"{rng.choice(['Is there anything', 'Do you see anything', 'Is anything'])} {asked.split()[0]}?"
    elif rng.random() < 0.75:
        question = rng.choice(IS_THERE).format(a=_a(asked), pic="{pic}")
    else:
        question = rng.choice(ARE_THERE).format(n=_plural(noun), pic="{pic}")
    if not found:
        return Turn("is there", question, f"No, there is no {noun}.")
    if len(found) > 1:
        return Turn("is there", question, f"Yes, there are {len(found)} {_plural(noun)}.")
    return Turn("is there", question, f"Yes, there is {_a(noun)}.", found[0])


def _is_colour(scene: Scene, rng: Random) -> Turn:
    shape = rng.choice(scene.items).shape if scene.items and rng.random() < 0.85 else rng.choice(SHAPES)
    found = [i for i in scene.items if i.shape == shape]
    if len(found) > 1:
        return _colour_of(scene, rng)
    colour = found[0].colour if found and rng.random() < 0.5 else rng.choice(list(COLOURS))
    question = f"Is the {shape}{rng.choice(['', '', ' in {pic}'])} {colour}?"
    if not found:
        return Turn("is colour", question, f"There is no {shape}.")
    word = "Yes" if found[0].colour == colour else "No"
    return Turn("is colour", question, f"{word}, the {shape} is {found[0].colour}.", found[0])


def _is_at(scene: Scene, rng: Random) -> Turn:
    asked, noun, found = _noun(scene, rng, 0.85)
    if len(found) > 1:
        return _where(scene, rng)
    here = [s for s in SPOTS if found and s[2] in (None, found[0].column) and s[3] in (None, found[0].row)]
    ways, _, column, row = rng.choice(here if here and rng.random() < 0.5 else SPOTS)
    question = f"Is the {asked} {rng.choice(ways)}?"
    if not found:
        return Turn("is at", question, f"There is no {noun}.")
    right = column in (None, found[0].column) and row in (None, found[0].row)
    return Turn("is at", question, f"{'Yes' if right else 'No'}, the {noun} is {found[0].place}.", found[0])


def _side(a: Item, b: Item, asked: str) -> str:
    """Where `a` lies from `b`, along the axis asked about, or along the other where that one does not tell."""
    across = "left of" if a.column < b.column else "right of" if a.column > b.column else ""
    along = "above" if a.row < b.row else "below" if a.row > b.row else ""
    return (across or along) if asked in ("left of", "right of") else (along or across)


def _relation(scene: Scene, rng: Random) -> Turn:
    first, second = _noun(scene, rng, 0.93), _noun(scene, rng, 0.93)
    if len(first[2]) > 1 or len(second[2]) > 1 or first[2] == second[2] or first[1] == second[1]:
        return _what_side(scene, rng)
    asked = rng.choice(list(SIDES))
    if first[2] and second[2] and rng.random() < 0.3:
        asked = _side(first[2][0], second[2][0], asked)
    question = f"Is the {first[0]} {rng.choice(SIDES[asked])} the {second[0]}?"
    for _, noun, found in (first, second):
        if not found:
            return Turn("relation", question, f"There is no {noun}.")
    true = _side(first[2][0], second[2][0], asked)
    return Turn("relation", question, f"{'Yes' if true == asked else 'No'}, the {first[1]} is {true} the {second[1]}.")


def _what_side(scene: Scene, rng: Random) -> Turn:
    asked, noun, found = _noun(scene, rng, 0.9)
    if len(found) > 1:
        return _describe(scene, rng)
    side = rng.choice(list(SIDES))
    question = rng.choice(WHAT_SIDE).format(d=rng.choice(SIDES[side]), n=asked)
    if not found:
        return Turn("what side", question, f"There is no {noun}.")
    here = found[0]
    there = [
        i
        for i in scene.items
        if {
            "left of": i.column < here.column,
            "right of": i.column > here.column,
            "above": i.row < here.row,
            "below": i.row > here.row,
        }[side]
    ]
    answer = f"I see {_join([_a(i.name) for i in there])}." if there else f"There is nothing {side} the {noun}."
    return Turn("what side", question, answer, there[0] if len(there) == 1 else None)


def _what_at(scene: Scene, rng: Random) -> Turn:
    def match(spot: tuple[tuple[str, ...], str, int | None, int | None]) -> list[Item]:
        return [i for i in scene.items if spot[2] in (None, i.column) and spot[3] in (None, i.row)]

    spot = rng.choice([s for s in SPOTS if match(s)] or SPOTS) if rng.random() < 0.6 else rng.choice(SPOTS)
    found, way = match(spot), rng.choice(spot[0])
    if len(found) < 2 and rng.random() < 0.4:
        question = rng.choice(COLOUR_AT).format(at=way, pic="{pic}", colour="{colour}")
        if found:
            return Turn("what at", question, f"It is {found[0].colour}.", found[0])
    else:
        question = rng.choice(WHAT_AT).format(at=way, pic="{pic}")
        question = question.replace("of {pic} of", "of")
    answer = _see(found) if found else f"There is nothing {spot[1]}."
    return Turn("what at", question, answer, found[0] if len(found) == 1 else None)


def _colours(scene: Scene, rng: Random) -> Turn:
    seen = list(dict.fromkeys(i.colour for i in scene.items))
    return Turn("colours", rng.choice(COLOURS_SEEN), f"I see {_join(seen)}." if seen else "I see no shapes.")


def _size(scene: Scene, rng: Random) -> Turn:
    ranked = sorted(scene.items, key=lambda i: i.radius)
    big = rng.random() < 0.5
    best, rest = (ranked[-1:], ranked[:-1]) if big else (ranked[:1], ranked[1:])
    if not best or any(max(i.radius, best[0].radius) < 1.3 * min(i.radius, best[0].radius) for i in rest):
        return _count(scene, rng)  # too close to call
    word = "biggest" if big else "smallest"
    asked = rng.choice(["biggest", "biggest", "largest"] if big else ["smallest", "smallest", "tiniest"])
    question = rng.choice(SIZE).format(s=asked, pic="{pic}")
    return Turn("size", question, f"The {word} shape is the {best[0].name}.", best[0])


def _other(scene: Scene, rng: Random) -> Turn:
    """Things that no picture holds, small talk and what this model knows nothing about."""
    kind = rng.random()
    if kind < 0.5:
        noun = rng.choice(OTHERS)
        asked, answer = rng.choice(
            [
                (IS_THERE, f"No, there is no {noun}."),
                (WHERE, f"There is no {noun}."),
                (COLOUR_OF, f"There is no {noun}."),
                (COUNT, f"There are no {_plural(noun)}."),
            ]
        )
        number = _plural(noun) if asked is COUNT else noun
        return Turn("other", rng.choice(asked).format(a=_a(noun), n=number, pic="{pic}", colour="{colour}"), answer)
    if kind < 0.75:
        return Turn("other", rng.choice(OFF_TOPIC), "I only know about coloured shapes.")
    return replace(small_talk(rng, picture=True), kind="other")


def small_talk(rng: Random, picture: bool) -> Turn:
    """A turn that is not about a picture."""
    pairs = [
        (GREETINGS, "Hello! Ask me about the picture." if picture else "Hello! Show me a picture with shapes."),
        (ABOUT, "I am a tiny model that answers questions about coloured shapes."),
        (THANKS, "You are welcome!"),
        (BYES, "Goodbye!"),
    ]
    questions, answer = rng.choice(pairs)
    return Turn("text only", rng.choice(questions), answer)


KINDS = {
    _describe: 8,
    _where: 16,
    _count: 9,
    _colour_of: 8,
    _shape_of: 8,
    _is_there: 9,
    _is_colour: 3,
    _is_at: 8,
    _relation: 20,
    _what_side: 16,
    _what_at: 7,
    _colours: 4,
    _size: 5,
    _other: 4,
}


def ask(scene: Scene, rng: Random) -> Turn:
    """A random question about the scene."""
    make = rng.choices(list(KINDS), list(KINDS.values()))[0]
    if len(scene.items) == 1 and rng.random() < 0.06:
        return follow_up(scene.items[0], rng)
    return as_typed(make(scene, rng), rng)


def ask_plainly(scene: Scene, rng: Random) -> Turn:
    """A random question that compares no two shapes, needs nothing said before it, and has no slip of the finger in it."""
    plain = {make: often for make, often in KINDS.items() if make not in (_relation, _what_side, _size)}
    make = rng.choices(list(plain), list(plain.values()))[0]
    return as_typed(make(scene, rng), rng, careful=True)


def follow_up(item: Item, rng: Random) -> Turn:
    """A question about "it"."""
    question, answer = rng.choice(
        [
            ("What {colour} is it?", f"It is {item.colour}."),
            ("Which {colour} is it?", f"It is {item.colour}."),
            ("Where is it?", f"It is {item.place}."),
            ("Where is it in {pic}?", f"It is {item.place}."),
            ("What shape is it?", f"It is {_a(item.shape)}."),
            ("Which shape is it?", f"It is {_a(item.shape)}."),
        ]
    )
    return as_typed(Turn("follow-up", question, answer, item), rng)


def conversation(scene: Scene, rng: Random, turns: int) -> list[Turn]:
    """Several questions about one picture, some of them about the shape that the last one was about."""
    talk = [ask(scene, rng)]
    while len(talk) < turns:
        focus = talk[-1].focus
        if focus and rng.random() < 0.4:
            talk.append(follow_up(focus, rng))
        elif rng.random() < 0.04:
            talk.append(replace(as_typed(Turn("other", rng.choice(THANKS), "You are welcome!"), rng), focus=focus))
        else:
            talk.append(ask(scene, rng))
    return talk


def text_only(rng: Random, *, careful: bool = False) -> list[Turn]:
    """A conversation without a picture."""
    talk = []
    for _ in range(rng.choice([1, 1, 2])):
        kind = rng.random()
        if kind < 0.5:
            turn = small_talk(rng, picture=False)
        elif kind < 0.75:
            turn = Turn("text only", rng.choice(OFF_TOPIC), "I only know about coloured shapes.")
        else:
            turn = ask_plainly(make_scene(rng, plain=True), rng) if careful else ask(make_scene(rng), rng)
            if turn.kind == "other":
                continue
            turn = Turn("text only", turn.question, NO_PICTURE)
        talk.append(as_typed(turn, rng, careful=careful))
    return talk or text_only(rng, careful=careful)


def as_typed(turn: Turn, rng: Random, *, careful: bool = False) -> Turn:
    """The question as somebody may type it: either spelling, any case, with and without its punctuation.

    Who is careful leaves out no more than capitals and the mark at the end.
    """
    question = turn.question.replace("{pic}", rng.choice(PICTURES)).replace("{colour}", rng.choice(["colour", "color"]))
    if careful:
        question = question.lower() if rng.random() < 0.25 else question
        return replace(turn, question=question.rstrip("?.!") if rng.random() < 0.2 else question)
    way = rng.random()
    if way < 0.05:
        question = rng.choice(BEFORE) + question
    elif way < 0.08:
        question = question.rstrip("?.!") + rng.choice([", please?", " please"])
    case = rng.random()
    if case < 0.25:
        question = question.lower()
    elif case < 0.27:
        question = question.upper()
    mark = rng.random()
    if mark < 0.2:
        question = question.rstrip("?.!")
    elif mark < 0.23:
        question = question.rstrip("?.!") + rng.choice(["??", " ?", "!", ".", "?!"])
    if rng.random() < 0.02 and len(question) > 8:  # a slip of the finger
        at = rng.randrange(1, len(question) - 1)
        question = question[:at] + question[at + 1 :]
    return replace(turn, question=question)
