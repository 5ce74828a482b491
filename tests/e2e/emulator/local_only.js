// Loaded before a server that listens on all interfaces: it gets the local one.
const { Server } = require("node:net");

const listen = Server.prototype.listen;

Server.prototype.listen = function (...args) {
  const [where] = args;
  if (where !== null && typeof where === "object") {
    args[0] = { ...where, host: "127.0.0.1" };
  } else {
    args.splice(1, typeof args[1] === "string" ? 1 : 0, "127.0.0.1");
  }
  return listen.apply(this, args);
};
