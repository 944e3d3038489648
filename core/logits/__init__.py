"""What requests ask of their logits before a token is drawn, vectorised over the batch, each row by itself.

rules.py     one request's wishes, checked and in numbers; its state, which token ids alone determine
shape.py     everything applied, in order              penalties.py  repetition, presence, frequency
masks.py     what forbids tokens                       bad_words.py  sequences of tokens that are not completed
custom.py    functions that the caller brought         logprobs.py   log-probabilities of output and prompt
"""
