// Compiled and never run: the generated maps as a user of the client would take them.

import { EventClient } from './tidegate.js';
import type { ChatGatewayEvents, ChatMessage } from './chat.js';
import type { NotifyGatewayEvents } from './notify.js';
import type { AgentGatewayEvents } from './ai_stream.js';

export async function use(url: string): Promise<void> {
  const chat = new EventClient<ChatGatewayEvents>(url);
  const said: ChatMessage = await chat.request('message', { author: 'ada', text: 'hi' });
  const history: ChatMessage[] = await chat.request('history');
  const present: number = await chat.request('presence');
  chat.emit('typing', said);
  chat.onEvent('typing', ({ author }) => author.length);
  chat.onEvent('message', ({ text }) => text.length);
  // @ts-expect-error a message has a text
  await chat.request('message', { author: 'ada' });
  // @ts-expect-error no such event
  await chat.request('mesage', said);
  // @ts-expect-error the server says no such thing
  chat.onEvent('typed', () => {});
  const notify = new EventClient<NotifyGatewayEvents>(url);
  notify.emit('ping');
  const agent = new EventClient<AgentGatewayEvents>(url);
  const active: number = await agent.request('active');
  console.log(history.length + present + active);
}
