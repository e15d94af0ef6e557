/* What the page of a stranger tries against `base`. */
window.tryFetches = async (base) => {
  const tried = [];
  const paths = ['/pause', '/actions/tasks', '/submit', '/api/v1/tasks', '/api/v1/bulk'];
  for (const path of paths)
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'])
      for (const mode of ['no-cors', 'cors']) {
        if (mode === 'no-cors' && method !== 'POST') continue;
        const body = path.startsWith('/api') ? JSON.stringify({name: 'add', args: [1, 2], action: 'cancel', q: ''}) : 'queue=default&action=cancel&all=true&confirmed=true&name=add&arg-a=1&arg-b=2';
        const headers = mode === 'cors' && path.startsWith('/api') ? {'content-type': 'application/json'} : {'content-type': path.startsWith('/api') ? 'text/plain' : 'application/x-www-form-urlencoded'};
        try { const r = await fetch(base + path, {method, mode, body, headers}); tried.push([path, method, mode, r.type, (await r.text()).length]); }
        catch (e) { tried.push([path, method, mode, 'refused', 0]); }
      }
  for (const path of ['/', '/tasks', '/api/v1/tasks', '/api/v1/stats', '/metrics', '/live?page=/tasks'])
    for (const mode of ['no-cors', 'cors']) {
      try { const r = await fetch(base + path, {mode}); tried.push([path, 'GET', mode, r.type, (await r.text()).length]); }
      catch (e) { tried.push([path, 'GET', mode, 'refused', 0]); }
    }
  for (const path of ['/live?page=/tasks', '/api/v1/events'])
    tried.push([path, 'GET', 'sse', await new Promise((done) => {
      const source = new EventSource(base + path);
      source.onmessage = source.onopen = () => { source.close(); done('opened'); };
      source.addEventListener('page', () => { source.close(); done('opened'); });
      source.onerror = () => { source.close(); done('refused'); };
    }), 0]);
  return tried;
};

window.tryForm = async (base, path, fields) => {
  const frame = document.createElement('iframe'); frame.name = 'f' + Math.random(); document.body.append(frame);
  const form = document.createElement('form'); form.method = 'post'; form.action = base + path; form.target = frame.name;
  for (const [name, value] of Object.entries(fields)) { const input = document.createElement('input'); input.name = name; input.value = value; form.append(input); }
  document.body.append(form);
  const loaded = new Promise((done) => { frame.onload = done; setTimeout(done, 1500); });
  form.submit(); await loaded;
};

window.tryFrame = (url) => new Promise((done) => {
  const frame = document.createElement('iframe');
  frame.onload = done;
  frame.src = url;
  document.body.append(frame);
});
