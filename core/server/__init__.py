"""The OpenAI-compatible HTTP server, `engine serve`.

settings.py  every option of the server, validated        main.py      listens, drains, ends
app.py       the application, assembled                   gate.py      what every request passes: id, headers, log, drain
auth.py      keys                                         body.py      bodies: their type and size
errors.py    one table: error → status, type, code        sse.py       event streams
start.py     loads models and listens                     models.py    the models served, by name
media.py     what messages bring: pictures and clips      fetches.py   those of them that are fetched
routes/      one file for each family of endpoints        protocol/    what clients send and get

Engines run in processes of their own (docs/decisions/0009-processes.md):

client.py       `AsyncLLM` over such a process            supervisor.py   watches over it: starts, restarts, ends it
sequences.py    its requests, as they are known here      remote_engine.py, remote_inputs.py  the engine, as it is known here
engine_process.py, engine_loop.py  what runs there        input_process.py, input_pool.py     prompts are processed, likewise
wire.py         the messages                              letters.py, faults.py  engine objects and errors ↔ messages
line.py, child.py, worker.py, bell.py                     the ends of a line, a process from outside and from inside
"""
