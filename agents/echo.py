"""The smallest graph there is: it answers with the text of the last message. No model, no key.

Run it first, to see that everything around a graph works, and last, to measure what that costs.
"""

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph


async def echo(state: MessagesState) -> dict[str, list[AIMessage]]:
    if not state["messages"]:
        raise ValueError("There is nothing to echo: send at least one message.")
    # A message may hold images and files too; `text` is all of its text parts together.
    return {"messages": [AIMessage(str(state["messages"][-1].text))]}


builder = StateGraph(MessagesState)
builder.add_node(echo)
builder.add_edge(START, "echo")
builder.add_edge("echo", END)
# Without a checkpointer and a store: whoever serves the graph brings its own.
graph = builder.compile()
