// Where checks take place: a server, and in front of it a proxy whose connections can be cut.

import net from "node:net";

export class Proxy {
  #sockets = new Set();
  #server;

  static async before(url) {
    const proxy = new Proxy();
    const { hostname, port } = new URL(url);
    proxy.#server = net.createServer((near) => {
      const far = net.connect(Number(port), hostname);
      for (const [one, other] of [[near, far], [far, near]]) {
        proxy.#sockets.add(one);
        one.pipe(other);
        one.on("error", () => other.destroy());
        one.on("close", () => {
          proxy.#sockets.delete(one);
          other.destroy();
        });
      }
    });
    await new Promise((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    proxy.url = `http://127.0.0.1:${proxy.#server.address().port}`;
    return proxy;
  }

  /** Drop every connection as a broken network does; new ones are taken. Returns how many. */
  cut() {
    const held = [...this.#sockets];
    for (const socket of held) socket.resetAndDestroy();
    return held.length;
  }

  close() {
    this.cut();
    this.#server.close();
  }
}
