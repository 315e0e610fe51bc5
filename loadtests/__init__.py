"""Load tests with Locust: steps up to saturation and beyond, then back, judged by thresholds.

The modules in the order in which a run uses them; ``run.py`` does all of it:

    plan.py shapes.py                        how many users, and when
    service_user.py locustfile.py            who sends requests, and how an answer is judged
    queries.py composed.py bad_input.py      what they ask
    samples.py recorder.py                   one sample a request
    summary.py                               one result a step
    thresholds.py thresholds.toml            what is demanded of it
    report.py                                the table, the plot and the line of JSON

Locust patches the whole process with gevent when it is imported. So only ``service_user.py``, ``locustfile.py``,
``recorder.py`` and ``shapes.py`` import it, and only Locust imports those. They load nothing of the service but its
schemas. numpy and matplotlib stay in the process of ``run.py``.
"""
