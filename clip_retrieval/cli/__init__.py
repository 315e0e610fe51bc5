"""The command line: one file a command. The only wing that prints.

console.py        progress bars and tables
options.py        options that several commands share
bentoml_serve.py  ``bentoml serve`` as a child process
search.py         ``bento-clip search``
evaluate.py       ``bento-clip evaluate``
tune.py           ``bento-clip tune``
finetune.py       ``bento-clip finetune``
artifacts.py      ``bento-clip artifacts``
app.py            the command line itself, with check, build, info and serve
"""
