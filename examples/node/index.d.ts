/**
 * The worker's numbered place, which its successors fill: `STICKY_LB_SLOT`, else PM2's `NODE_APP_INSTANCE`.
 * `undefined` outside.
 */
export declare const slot: number | undefined;

/** How many workers the slot has had before this one; 0 outside of sticky-lb. */
export declare const generation: number;

/** Whether the process is a worker of sticky-lb, PM2 or Node's cluster. */
export declare const isWorker: boolean;

/**
 * Says that the worker can serve, for `wait_ready`. Does nothing outside.
 *
 * @returns whether it has been sent
 */
export declare function ready(): boolean;

export interface DrainOptions {
  /**
   * How long the callback may take, in milliseconds; then the process exits with 1. The manager's own limit, such
   * as `kill_timeout`, counts beside it.
   *
   * @default 30000
   */
  timeout?: number | undefined;
}

/**
 * Calls back once when the worker is to end: at the message `"shutdown"` or `{ type: "shutdown" }`, at SIGINT or at
 * SIGTERM, whichever comes first. Then the process exits: with 0, or with 1 if a callback has failed. A promise is
 * waited for, and so is the server that `server.close()` returns, until its last connection has ended; those that
 * become idle are closed soon. Several callbacks run at the same time.
 *
 * @returns a function that takes the callback back
 */
export declare function onDrain(callback: () => unknown, options?: DrainOptions): () => void;

/** A `Server` of socket.io 4, as far as it is used here. */
export interface SocketIoServer {
  readonly engine: unknown;
  close(): unknown;
}

export interface SocketIoDrainOptions extends DrainOptions {
  /**
   * Over how many milliseconds connections are closed, so that clients do not all reconnect at once.
   *
   * @default a quarter of `kill_timeout` in a worker of sticky-lb, else 1000
   */
  over?: number | undefined;
}

/**
 * Closes the connections of Socket.IO's clients when the worker is to end, so that they reconnect elsewhere; then
 * the server, then the process exits as after {@link onDrain}.
 *
 * @returns a function that takes it back
 */
export declare function drainSocketIo(io: SocketIoServer, options?: SocketIoDrainOptions): () => void;
