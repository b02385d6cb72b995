// NestJS as its users write it, with decorators: `node --import tsx nest.ts`.
import 'reflect-metadata';
import { Controller, Get, Ip, Module, Query } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { about, pause } from './about.cjs';

@Controller()
class AppController {
  @Get()
  index(@Ip() address: string) {
    return about(address);
  }

  @Get('slow')
  async slow(@Ip() address: string, @Query('ms') milliseconds: string) {
    await pause(milliseconds);
    return about(address);
  }
}

@Module({ controllers: [AppController] })
class AppModule {}

async function bootstrap() {
  const app = await NestFactory.create(AppModule, { logger: ['error', 'warn'] });
  app.enableShutdownHooks();
  await app.listen(process.env.PORT ?? 3000);
}

bootstrap();
