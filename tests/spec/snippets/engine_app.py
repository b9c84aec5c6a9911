from sagellm_core import engine_server_app
import uvicorn
uvicorn.run(engine_server_app, host="0.0.0.0", port=8000)
