"""The floor: the least a LangGraph chat service over a WebSocket can be.

One node that streams `ChatOpenAI`, threads in memory, no retrieval, no citations, no limits.
`python -m benchmarks.one_node PORT` with `OPENAI_BASE_URL` set.
"""

import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

model = ChatOpenAI(model="paced", stream_usage=True)


async def answer(state: MessagesState) -> MessagesState:
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("answer", answer)
graph.add_edge(START, "answer")
graph.add_edge("answer", END)
compiled = graph.compile(checkpointer=InMemorySaver())
app = FastAPI()


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.websocket("/ws/chat")
async def chat(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            message = await socket.receive_json()
            config = {"configurable": {"thread_id": message["conversation_id"]}}
            state = {"messages": [HumanMessage(message["message"])]}
            async for piece, _ in compiled.astream(state, config, stream_mode="messages"):
                if piece.text:
                    await socket.send_json({"token": piece.text, "done": False})
            await socket.send_json({"token": "", "done": True, "conversation_id": message["conversation_id"]})
    except WebSocketDisconnect:
        return


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
