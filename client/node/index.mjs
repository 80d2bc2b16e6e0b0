// @ts-check
import connect from './index.js';

export const {
  AuthError,
  Conflict,
  ConnectFailed,
  DeadlineExceeded,
  Exists,
  Failed,
  InvalidRequest,
  Missing,
  SessiondError,
  SessiondStore,
  Unavailable,
  keyFromName,
  keyName,
  keyOf,
} = connect;
export default SessiondStore;
