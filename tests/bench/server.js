// server.js - what services are compared with, in Node: its http module with one answer.
const server = require("http").createServer((request, response) => {
  const body = "hello, world\n";
  response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8",
                            "Content-Length": Buffer.byteLength(body) });
  response.end(body);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
