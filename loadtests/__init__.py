"""Load tests with Locust: steps up to saturation and beyond, then back, judged by thresholds.

The way of a run, which is also the order of the modules:

    plan → users → sample → step → thresholds → report
    plan.py  locustfile.py  samples.py  summary.py  thresholds.py  report.py
    shapes.py  queries.py   recorder.py             thresholds.toml          run.py does all of it

Importing locust patches the whole process with gevent, so only ``locustfile.py`` and ``shapes.py`` import it, and only
Locust imports those two. They load nothing of the service but its schemas. numpy and matplotlib stay on the other
side, in the process of ``run.py``.
"""
