"""The command line, with one file for each command. No other wing prints.

console.py          progress bars and tables
given.py            values that may not be empty
artifact_options.py what says which artifact
options.py          options that several commands share
engine_options.py   where a build embeds images
pruned.py           what a clean-up of the model store did
publish.py          a build into the model store or a folder
tls.py              the files that HTTPS is served with
probe.py            what the command asks of a service that starts
start_table.py      what a start took, as a table or JSON
waiting.py          what the command becomes when its service is ready
bentoml_serve.py    the service as a child process
check.py            ``bento-clip check``
models.py           ``bento-clip models``
build.py            ``bento-clip build``
memory_table.py     where the memory of a service is, as tables
info.py             ``bento-clip info``
where_option.py     the filters of --where as one tree
local_retriever.py  a retriever over an artifact of this machine
search.py           ``bento-clip search``
browse.py           ``bento-clip browse``
serve.py            ``bento-clip serve``
demo.py             ``bento-clip demo``
swap.py             ``bento-clip swap``
compact.py          ``bento-clip compact``
language_table.py   recall by language as a table
change_options.py   options of the commands that change a running service
add.py              ``bento-clip add``
edit.py             ``bento-clip edit``
remove.py           ``bento-clip remove``
sync_service.py     a running service is made equal to a source
sync_target.py      what a source can be synchronised to
watching.py         when to look at folders again
sync.py             ``bento-clip sync``
mcp_tools.py        what an assistant can do with a running service
mcp.py              ``bento-clip mcp``
logged.py           the searches of a query log as queries
traffic.py          an artifact judged by what its service was asked
evaluate.py         ``bento-clip evaluate``
tune.py             ``bento-clip tune``
finetune.py         ``bento-clip finetune``
artifacts.py        ``bento-clip artifacts``
keys.py             ``bento-clip keys``
queries.py          ``bento-clip queries``
app.py              the application, which holds all commands
"""
