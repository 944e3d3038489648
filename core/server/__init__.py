"""The OpenAI-compatible HTTP server, `engine serve`.

settings.py  every option of the server, validated        main.py      listens, drains, ends
app.py       the application, assembled                   gate.py      what every request passes: id, headers, log, drain
auth.py      keys                                         body.py      bodies: their type and size
errors.py    one table: error → status, type, code        sse.py       event streams
start.py     loads models and listens                     models.py    the models served, by name
routes/      one file for each family of endpoints        protocol/    what clients send and get
"""
