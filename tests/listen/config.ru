# A Rack application for Puma.
require 'json'

run lambda { |env|
  said = { pid: Process.pid, slot: ENV['NODE_APP_INSTANCE'], remote: env['REMOTE_ADDR'] }
  [200, { 'content-type' => 'application/json' }, [JSON.generate(said)]]
}
