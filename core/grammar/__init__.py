"""Structured output: grammars, compiled outside the step, and followed token by token.

compiler.py    a grammar → its compiled form, kept for the next request      worker.py    the child that tries it first
cursor.py      where one sequence stands in its grammar, and what may come next
"""
